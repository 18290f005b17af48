"""Finds the end of a model's thoughts in a stream of text, and a tool call after them. Pure.

A guide applies to the content of an answer. So it must be known where the content begins.
"""

from dataclasses import dataclass
from typing import Literal

from dynemo.messages.request import Guide


@dataclass(frozen=True, slots=True)
class Thinking:
    """The thoughts and the calls that may stand before the content of an answer."""

    opens: tuple[str, ...]  #: of thoughts, if the model itself opens them
    closes: tuple[str, ...]
    is_open: bool  #: the prompt ends inside the thoughts
    budget: int | None = None  #: tokens that the thoughts may have; None: any number
    ending: str = ""  #: ends the thoughts for the model; empty: their first closing mark
    calls: tuple[str, ...] = ()  #: marks that begin a tool call instead of content
    ends_at_calls: bool = False  #: such a mark also ends the thoughts

    @property
    def closing(self) -> str:
        """The text that ends the thoughts for the model, as it would have written it."""
        mark = self.ending or self.closes[0]
        return f"\n{mark}\n\n" if mark.startswith("</") else mark


@dataclass(frozen=True, slots=True)
class HeldCalls:
    """How a call begins that must fit its tool's schema, and the guide for it from there on."""

    marks: tuple[str, ...]
    guide: Guide
    thinking: Thinking  #: in which marks are quotes


class Thoughts:
    """The state of one stream. Feed it the text of each token until `is_over`.

    `stage` is `start` while it is not known whether thoughts begin, then `open`, and `lead` between
    their end and the first word after them. It ends with `content` or `call`, or with `closed` if
    no tools are in play.
    """

    __slots__ = ("_longest", "_tail", "_thinking", "stage")

    def __init__(self, thinking: Thinking) -> None:
        self._thinking = thinking
        self._longest = max(map(len, (*thinking.closes, *thinking.calls)), default=0)
        self._tail = ""
        self.stage: Literal["start", "open", "lead", "content", "call", "closed"] = "start"
        if thinking.is_open:
            self.stage = "open"

    @property
    def rest(self) -> str:
        """The text after the closing mark, once there is one."""
        return self._tail

    @property
    def is_over(self) -> bool:
        return self.stage in ("content", "call", "closed")

    def feed(self, text: str) -> None:
        self._tail += text
        if self.stage == "start":
            self._begin()
        if self.stage == "open":
            self._think()
        if self.stage == "lead":
            self._lead()

    def _begin(self) -> None:
        start = self._tail.lstrip()
        for mark in self._thinking.opens:
            if start.startswith(mark):
                self.stage, self._tail = "open", start[len(mark) :]
                return
        if not any(mark.startswith(start) for mark in self._thinking.opens):
            self.stage = "lead" if self._thinking.calls else "content"

    def _think(self) -> None:
        for mark in self._thinking.closes:
            _, found, rest = self._tail.partition(mark)
            if found:
                self.stage, self._tail = ("lead" if self._thinking.calls else "closed"), rest
                return
        if self._thinking.ends_at_calls and any(c in self._tail for c in self._thinking.calls):
            self.stage = "call"
        self._tail = self._tail[-self._longest :]

    def _lead(self) -> None:
        start = self._tail.lstrip()
        if any(start.startswith(mark) for mark in self._thinking.calls):
            self.stage = "call"
        elif not any(mark.startswith(start) for mark in self._thinking.calls):
            self.stage = "content"
