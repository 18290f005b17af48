"""Gives the log probabilities of tokens to the parts that a format splits an answer into. Pure.

The parts come later than the tokens, and without the marks between them. Each part's text stands in
the answer as it is, so its tokens are found again: behind the marks and the white space that come
before it.
"""

import re
from collections import deque
from collections.abc import Iterable, Sequence

from msgspec import structs

from dynemo.messages.answer import TokenLogprob


class EntryPlacement:
    """The entries of one choice whose parts have not come yet. `marks` may stand before a part."""

    __slots__ = ("_entries", "_fresh", "_mark", "_more", "_text")

    def __init__(self, marks: Iterable[str]) -> None:
        longest_first = sorted(filter(None, marks), key=len, reverse=True)
        self._mark = re.compile("|".join([*map(re.escape, longest_first), r"\s", "."]), re.DOTALL)
        self._entries: deque[TokenLogprob] = deque()
        self._text = ""  # of the entries
        self._more: list[str] = []  # the rest of it, not joined yet
        self._fresh = 0  # entries that were added last

    def add(self, entries: Sequence[TokenLogprob]) -> None:
        self._entries.extend(entries)
        self._more += [entry.text for entry in entries]
        self._fresh = len(entries)

    def take(self, text: str) -> tuple[TokenLogprob, ...]:
        """Returns the entries of a part's text, and drops those before it.

        A token that belongs to two parts has an entry in each, with its text there.
        """
        self._join()
        start = self._find(text)
        if start < 0:
            self._forget()
            return ()
        self._first(start)
        return tuple(self._first(len(text)))

    def skip(self, text: str) -> None:
        """Drops the entries of a call's arguments, which may be written otherwise in the answer."""
        self._join()
        start = self._text.find(text)
        if start < 0:
            self._forget()
        else:
            self._first(start + len(text))

    def _join(self) -> None:
        if self._more:
            self._text += "".join(self._more)
            self._more.clear()

    def _forget(self) -> None:
        """Drops all entries but those that were added last."""
        while len(self._entries) > self._fresh:
            entry = self._entries.popleft()
            self._text = self._text[len(entry.text) :]

    def _find(self, text: str) -> int:
        """Returns where the text begins: at the start, or behind as few marks as possible."""
        at = 0
        while not self._text.startswith(text, at):
            match = self._mark.match(self._text, at)
            if match is None:
                return -1
            at = match.end()
        return at

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
