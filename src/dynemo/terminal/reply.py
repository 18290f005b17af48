"""One answer as it comes: its text, its timing, and how it ended."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from time import perf_counter

from dynemo.messages import Finish, Piece


@dataclass
class Reply:
    """Times are readings of `perf_counter`, in seconds."""

    started: float = field(default_factory=perf_counter)
    first: float | None = None  #: when the first token came
    last: float | None = None  #: when the latest one came
    first_tokens: int = 0  #: how many came at `first`
    tokens: int = 0
    parts: list[str] = field(default_factory=list)
    finish: Finish | None = None

    def take(self, piece: Piece) -> int:
        """Count a piece that has just come, and return by how many tokens the count grew."""
        before = self.tokens
        self.last = perf_counter()
        if self.first is None:
            self.first = self.last
            self.first_tokens = piece.tokens
        self.tokens += piece.tokens
        self.parts.append(piece.text)
        if piece.finish is not None:
            self.finish = piece.finish
            # The engine's own count, which has a final EOS as well.
            self.tokens = piece.finish.completion_tokens
        return self.tokens - before

    @property
    def text(self) -> str:
        return "".join(self.parts)

    @property
    def ttft(self) -> float | None:
        """Seconds to the first token."""
        return None if self.first is None else self.first - self.started

    @property
    def elapsed(self) -> float:
        """Seconds from asking to the latest token."""
        return (self.last or self.started) - self.started

    @property
    def rate(self) -> float | None:
        """Tokens per second after the first ones, or over all where they came at once."""
        if self.first is None or self.last is None:
            return None
        more, seconds = self.tokens - self.first_tokens, self.last - self.first
        if more <= 0 or seconds <= 0:
            more, seconds = self.tokens, self.elapsed
        return more / seconds if seconds > 0 else None


async def listen(
    pieces: AsyncGenerator[Piece, None], reply: Reply, say: Callable[[str], None]
) -> None:
    """Pass on all text to `say` and count it in `reply`. An exception anywhere closes `pieces`."""
    async with aclosing(pieces):
        async for piece in pieces:
            reply.take(piece)
            if piece.text:
                say(piece.text)
