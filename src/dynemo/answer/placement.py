"""Gives the log probabilities of an answer's tokens to the parts that a format splits it into. Pure.

The parts come later than the tokens, and without the marks between them. Each part's text stands in
the answer as it is, so its tokens are found again: behind the marks and the white space that come
before it.
"""

import re
from collections import deque
from collections.abc import Iterable

from msgspec import structs

from dynemo.messages.answer import TokenLogprob


class EntryPlacement:
    """The entries of one choice whose parts have not come yet. `marks` may stand before a part."""

    __slots__ = ("_entries", "_mark", "_text")

    def __init__(self, marks: Iterable[str]) -> None:
        longest_first = sorted(filter(None, marks), key=len, reverse=True)
        self._mark = re.compile("|".join([*map(re.escape, longest_first), r"\s", "."]), re.DOTALL)
        self._entries: deque[TokenLogprob] = deque()
        self._text = ""  # of the entries

    def add(self, entries: Iterable[TokenLogprob]) -> None:
        for entry in entries:
            self._entries.append(entry)
            self._text += entry.text

    def take(self, text: str) -> tuple[TokenLogprob, ...]:
        """Returns the entries of a part's text, and drops those before it.

        A token that belongs to two parts has an entry in each, with its text there.
        """
        start = self._find(text)
        if start < 0:
            return ()
        self._skip(start)
        return tuple(self._first(len(text)))

    def _find(self, text: str) -> int:
        """Returns where the text begins: at the start, or behind as few marks as possible."""
        at = 0
        while not self._text.startswith(text, at):
            match = self._mark.match(self._text, at)
            if match is None:
                return -1
            at = match.end()
        return at

    def _skip(self, characters: int) -> None:
        for _ in self._first(characters):
            pass
        if characters:  # parts of a character belong to the rest of it
            while self._entries and not self._entries[0].text and not self._text:
                self._entries.popleft()

    def _first(self, characters: int) -> list[TokenLogprob]:
        """Takes the entries of so many characters off the front. The last one may be cut."""
        self._text = self._text[characters:]
        taken: list[TokenLogprob] = []
        while self._entries and characters > 0:
            entry = self._entries.popleft()
            if len(entry.text) > characters:
                first, rest = _split(entry, characters)
                taken.append(first)
                self._entries.appendleft(rest)
                break
            taken.append(entry)
            characters -= len(entry.text)
        return taken


def _split(entry: TokenLogprob, characters: int) -> tuple[TokenLogprob, TokenLogprob]:
    text, data = entry.text, entry.bytes
    end = max(0, len(data) - len(text[characters:].encode()))
    return (
        structs.replace(entry, text=text[:characters], bytes=data[:end]),
        structs.replace(entry, text=text[characters:], bytes=data[end:]),
    )
