"""Collects one answer while it streams: its text, its timing, and how it ended."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from time import perf_counter

from dynemo.messages.answer import (
    ArgumentsPiece,
    Finish,
    FinishPiece,
    Piece,
    ReasoningPiece,
    TextPiece,
    ToolCallPiece,
)
from dynemo.messages.ask import Part, ReasoningPart, TextPart, ToolCallPart, Turn


@dataclass
class Reply:
    """An answer. Times are readings of `perf_counter`, in seconds."""

    started: float = field(default_factory=perf_counter)
    first: float | None = None  #: when the first token arrived
    last: float | None = None  #: when the latest token arrived
    first_tokens: int = 0  #: how many tokens arrived at `first`
    tokens: int = 0
    parts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    finish: Finish | None = None
    _calls: list[tuple[ToolCallPiece, list[str]]] = field(default_factory=list)

    def take(self, pieces: Sequence[Piece]) -> int:
        """Adds pieces that have just arrived. Returns the number of new tokens."""
        before = self.tokens
        self.last = perf_counter()
        for piece in pieces:
            match piece:
                case TextPiece(text=text, tokens=tokens):
                    self.tokens += tokens
                    self.parts.append(text)
                case ReasoningPiece(text=text, tokens=tokens):
                    self.tokens += tokens
                    self.thoughts.append(text)
                case ToolCallPiece():
                    self._calls.append((piece, []))
                case ArgumentsPiece(call=call, text=text, tokens=tokens):
                    self.tokens += tokens
                    self._calls[call][1].append(text)
                case FinishPiece(finish=finish):
                    self.finish = finish
                    # The engine's own count includes a final EOS.
                    self.tokens = finish.completion_tokens
        if self.first is None:
            self.first = self.last
            self.first_tokens = self.tokens
        return self.tokens - before

    @property
    def text(self) -> str:
        return "".join(self.parts)

    @property
    def reasoning(self) -> str:
        return "".join(self.thoughts)

    @property
    def calls(self) -> list[ToolCallPart]:
        return [ToolCallPart(call.name, "".join(parts), call.id) for call, parts in self._calls]

    @property
    def is_calling(self) -> bool:
        """Whether the answer ended with complete calls of tools, which wait for their results."""
        return self.finish is not None and self.finish.reason == "tool_calls" and bool(self._calls)

    @property
    def turn(self) -> Turn:
        """The answer as a turn of the conversation. An unfinished answer leaves out its calls."""
        parts: list[Part] = [ReasoningPart(self.reasoning)] if self.thoughts else []
        calls = self.calls if self.is_calling else []
        if self.text or not calls:
            parts.append(TextPart(self.text))
        return Turn("assistant", (*parts, *calls))

    @property
    def ttft(self) -> float | None:
        """Seconds to the first token, or None."""
        return None if self.first is None else self.first - self.started

    @property
    def elapsed(self) -> float:
        """Seconds from the request to the latest token."""
        return (self.last or self.started) - self.started

    @property
    def rate(self) -> float | None:
        """Tokens per second after the first ones, or over all if they arrived at the same time."""
        if self.first is None or self.last is None:
            return None
        more, seconds = self.tokens - self.first_tokens, self.last - self.first
        if more <= 0 or seconds <= 0:
            more, seconds = self.tokens, self.elapsed
        return more / seconds if seconds > 0 else None


async def listen(
    batches: AsyncGenerator[Sequence[Piece], None], reply: Reply, write: Callable[[Piece], None]
) -> None:
    """Passes all pieces to `write` and counts them in `reply`. Any exception closes `batches`."""
    async with aclosing(batches):
        async for pieces in batches:
            reply.take(pieces)
            for piece in pieces:
                write(piece)
