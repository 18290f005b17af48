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

    __slots__ = ("_entries", "_fresh", "_longest", "_mark", "_more", "_text")

    def __init__(self, marks: Iterable[str]) -> None:
        longest_first = sorted(filter(None, marks), key=len, reverse=True)
        self._longest = max(map(len, longest_first), default=1)
        self._mark = re.compile("|".join([*map(re.escape, longest_first), r"\s"]))
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
        taken: list[TokenLogprob] = []
        while text:
            count = self._behind_marks(text)
            if not count:
                start = self._text.find(text)
                if start < 0:
                    self._forget()
                    break
                self._first(start)
                count = len(text)
            taken += self._first(count)
            text = text[count:]
        return tuple(taken)

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

    def _behind_marks(self, text: str) -> int:
        """Drops the marks before a text. Returns how much of it comes then, up to the next mark."""
        at = 0
        while True:
            if self._text.startswith(text, at):
                count = len(text)
                break
            if count := self._up_to_mark(text, at):
                break
            match = self._mark.match(self._text, at)
            if match is None:
                return 0
            at = match.end()
        self._first(at)
        return count

    def _up_to_mark(self, text: str, at: int) -> int:
        """Returns how much of a text stands at a place, if a mark interrupts it there."""
        own = self._text[at : at + len(text)]
        pairs = enumerate(zip(own, text, strict=False))
        same = next((n for n, (a, b) in pairs if a != b), len(own))
        places = range(same, max(0, same - self._longest), -1)
        return next((n for n in places if self._mark.match(self._text, at + n)), 0)

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
