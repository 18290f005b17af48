"""Finds the end of a model's thoughts in a stream of text. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Thinking:
    """The thoughts that may begin an answer."""

    opens: tuple[str, ...]
    closes: tuple[str, ...]
    is_open: bool  #: the prompt ends inside them
    budget: int | None = None  #: tokens that they may have; None: any number
    ending: str = ""  #: what ends them for the model, if it is not the first closing mark

    @property
    def closing(self) -> str:
        """What ends them for the model, as it would have written it."""
        mark = self.ending or self.closes[0]
        return f"\n{mark}\n\n" if mark.startswith("</") else mark


class Thoughts:
    """The state of one stream. Feed it the text of each token."""

    __slots__ = ("_longest", "_tail", "_thinking", "has_answer", "is_open", "is_over")

    def __init__(self, thinking: Thinking) -> None:
        self._thinking = thinking
        self._longest = max(map(len, thinking.closes))
        self._tail = ""
        self.is_open = thinking.is_open
        self.has_answer = False  #: the last token belongs to the answer
        self.is_over = False

    def feed(self, text: str) -> None:
        """Without an opening mark at its start, the whole stream is an answer."""
        if not self.is_open:
            self._tail += text
            start = self._tail.lstrip()
            for mark in self._thinking.opens:
                if start.startswith(mark):
                    self.is_open = True
                    text, self._tail = start[len(mark) :], ""
                    break
            else:
                is_possible = any(mark.startswith(start) for mark in self._thinking.opens)
                self.is_over = self.has_answer = not is_possible
                return
        self._tail += text
        for mark in self._thinking.closes:
            if mark in self._tail:
                self.is_open, self.is_over = False, True
                return
        self._tail = self._tail[-self._longest :]
