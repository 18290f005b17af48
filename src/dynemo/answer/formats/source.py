"""The text of an answer, which arrives in pieces, and the steps that read it.

A reader is a generator: it yields when it needs more text, and goes on when more has come. What it
reads depends on the text alone, never on the pieces: it takes a character only when no later text
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
    """What looked like a tool call is none: it is malformed, cut off, or names no tool."""


class Marks:
    """Texts to search for. Where two begin at one place, the one that stands first here counts."""

    __slots__ = ("_longest", "_starts", "texts")

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = tuple(dict.fromkeys(text for text in texts if text))
        self._longest = max(map(len, self.texts), default=0)
        firsts = "".join(dict.fromkeys(text[0] for text in self.texts))
        self._starts = re.compile(f"[{re.escape(firsts)}]") if firsts else None

    def find(self, text: str, at: int, *, is_over: bool) -> tuple[int, str]:
        """Returns where the first mark begins, and the mark.

        The mark is empty if there is none: then the text before that place holds no part of a mark.
        """
        if self._starts is None:
            return len(text), ""
        for match in self._starts.finditer(text, at):
            start = match.start()
            for mark in self.texts:
                if text.startswith(mark, start):
                    return start, mark
            if not is_over and len(text) - start < self._longest:
                rest = text[start:]
                if any(mark.startswith(rest) for mark in self.texts):
                    return start, ""
        return len(text), ""


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
        self._raw = []

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

    def has(self, texts: tuple[str, ...]) -> Steps[str]:
        """Takes the first of these texts that comes next, and returns it, or empty text."""
        while True:
            rest = self.text[self.at : self.at + max(map(len, texts), default=0)]
            for text in texts:
                if rest.startswith(text):
                    self.take(self.at + len(text))
                    return text
                if text.startswith(rest) and not self.is_over:
                    break  # it may still come
            else:
                return ""
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

        Returns empty text if the text ends before a mark.
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

    def is_next(self, followers: tuple[str, ...]) -> Steps[bool]:
        """Whether white space and then one of these texts comes next. Takes nothing."""
        while True:
            match = _SPACE.match(self.text, self.at)
            start = match.end() if match else self.at
            if start - self.at > _AHEAD:
                return False
            rest = self.text[start : start + max(map(len, followers))]
            if any(rest.startswith(text) for text in followers):
                return True
            if self.is_over or not any(text.startswith(rest) for text in followers):
                return False
            yield
