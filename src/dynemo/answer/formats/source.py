"""The text of an answer, which arrives in pieces, and the steps that read it.

A reader is a generator: it yields when it needs more text, and continues when more has come. Its
result depends on the text alone, never on the pieces: it takes a character only when no later text
can change what that character means.
"""

import re
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

T = TypeVar("T")

#: A reader that returns T at its end.
Steps = Generator[None, None, T]

Emit = Callable[[str], None]

_SPACE = re.compile(r"[ \t\r\n]*")

#: Spaces after a closing mark within which the next mark must come.
_AHEAD = 64


class NotACall(Exception):
    """The text is not a tool call after all: it is malformed, cut off, or names no known tool."""


class Marks:
    """Texts to search for. Where several begin at one place, the longest counts."""

    __slots__ = ("_longest", "_starts", "texts")

    def __init__(self, texts: Iterable[str]) -> None:
        unique = dict.fromkeys(text for text in texts if text)
        self.texts = tuple(sorted(unique, key=len, reverse=True))
        self._longest = max(map(len, self.texts), default=0)
        firsts = "".join(dict.fromkeys(text[0] for text in self.texts))
        self._starts = re.compile(f"[{re.escape(firsts)}]") if firsts else None

    def is_absent(self, text: str) -> bool:
        """Whether no mark begins in this text."""
        return self._starts is None or self._starts.search(text) is None

    def find(self, text: str, at: int, *, is_over: bool) -> tuple[int, str]:
        """Returns where the first mark begins, and the mark.

        The mark is empty if there is none. Then the text from that place on may begin a mark, if
        more text comes.
        """
        if self._starts is None:
            return len(text), ""
        for match in self._starts.finditer(text, at):
            start = match.start()
            mark, may_grow = _longest(self.texts, text[start : start + self._longest])
            if may_grow and not (mark and is_over):
                return start, ""
            if mark:
                return start, mark
        return len(text), ""


def _longest(texts: Iterable[str], rest: str) -> tuple[str, bool]:
    """Returns the longest text that `rest` begins with, and whether more text may make a longer."""
    found, may_grow = "", False
    for text in texts:
        if rest.startswith(text):
            found = max(found, text, key=len)
        elif text.startswith(rest):
            may_grow = True
    return found, may_grow


class Source:
    """The text that has come and is not taken yet."""

    __slots__ = ("_raw", "at", "is_over", "text")

    def __init__(self) -> None:
        self.text = ""
        self.at = 0
        self.is_over = False
        self._raw: list[str] | None = None

    def feed(self, text: str) -> None:
        self.text = self.text[self.at :] + text
        self.at = 0

    # What a failed reader has taken can be had again.

    def record(self) -> None:
        """Starts to record what is taken, and forgets what was recorded before."""
        if self._raw is None:
            self._raw = []
        elif self._raw:
            self._raw.clear()

    def recorded(self) -> str:
        """Returns what was taken since `record`, and stops recording."""
        raw, self._raw = self._raw, None
        return "".join(raw or ())

    def take(self, end: int) -> str:
        """Takes the text up to an index in `text`."""
        text = self.text[self.at : end]
        self.at = end
        if self._raw is not None and text:
            self._raw.append(text)
        return text

    def give_back(self, text: str) -> None:
        """Puts back the last text that was taken."""
        if self.at >= len(text):
            self.at -= len(text)
        else:
            self.text, self.at = text + self.text[self.at :], 0

    def rest(self) -> str:
        """Takes all text."""
        return self.take(len(self.text))

    # Steps. All of them raise NotACall if the text ends too early, unless they say otherwise.

    def more(self) -> Steps[bool]:
        """Waits for more text. Returns False if there is none."""
        if self.is_over:
            return False
        yield
        return True

    def need(self) -> Steps[None]:
        if self.is_over:
            raise NotACall
        yield

    def peek(self) -> Steps[str]:
        """Returns the next character without taking it; empty text at the end."""
        while self.at >= len(self.text):
            if not (yield from self.more()):
                return ""
        return self.text[self.at]

    def spaces(self) -> Steps[str]:
        """Takes white space, and returns the next character without taking it, as `peek`."""
        while True:
            match = _SPACE.match(self.text, self.at)
            self.take(match.end() if match else self.at)
            if self.at < len(self.text):
                return self.text[self.at]
            if not (yield from self.more()):
                return ""

    def run_of(self, characters: re.Pattern[str], most: int) -> Steps[int]:
        """Returns where a run of some characters ends, without taking it.

        Raises NotACall if it is longer than `most`.
        """
        while True:
            match = characters.match(self.text, self.at)
            end = match.end() if match else self.at
            if end - self.at > most:
                raise NotACall
            if end < len(self.text) or self.is_over:
                return end
            yield

    def has(self, texts: tuple[str, ...]) -> Steps[str]:
        """Takes the longest of these texts that comes next, and returns it, or empty text."""
        longest = max(map(len, texts), default=0)
        while True:
            rest = self.text[self.at : self.at + longest]
            found, may_grow = _longest(texts, rest)
            if self.is_over or not may_grow:
                self.take(self.at + len(found))
                return found
            yield

    def expect(self, *texts: str) -> Steps[str]:
        """Takes white space and then one of these texts. Raises NotACall if none comes."""
        yield from self.spaces()
        found = yield from self.has(texts)
        if not found:
            raise NotACall
        return found

    def until(self, marks: Marks, emit: Emit) -> Steps[str]:
        """Gives the text up to the next mark to `emit`. Takes the mark, and returns it.

        Returns empty text if no mark comes. Then the text that may begin one is not taken.
        """
        while True:
            end, mark = marks.find(self.text, self.at, is_over=self.is_over)
            if end > self.at:
                emit(self.take(end))
            if mark:
                self.take(end + len(mark))
                return mark
            if not (yield from self.more()):
                return ""

    def short(self, marks: Marks, most: int) -> Steps[tuple[str, str]]:
        """Takes at most so many characters up to a mark, and the mark. Returns both."""
        taken: list[str] = []
        left = most
        while True:
            end, mark = marks.find(self.text, self.at, is_over=self.is_over)
            if end - self.at > left:
                self.take(self.at + left)
                raise NotACall
            left -= end - self.at
            taken.append(self.take(end))
            if mark:
                self.take(end + len(mark))
                return "".join(taken), mark
            yield from self.need()

    def is_next(self, followers: tuple[str, ...], *, at_end: bool = False) -> Steps[bool]:
        """Whether white space and then one of these texts comes next. Takes nothing.

        `at_end`: the end of the text counts as well.
        """
        while True:
            match = _SPACE.match(self.text, self.at)
            start = match.end() if match else self.at
            if start - self.at > _AHEAD:
                return False
            rest = self.text[start : start + max(map(len, followers), default=0)]
            if any(rest.startswith(text) for text in followers):
                return True
            if self.is_over:
                return at_end and not rest
            if not any(text.startswith(rest) for text in followers):
                return False
            yield
