"""Counts what an answer cost, piece by piece. Pure."""

from dynemo.errors import EngineError
from dynemo.messages.answer import (
    ArgumentsPiece,
    Finish,
    FinishPiece,
    Piece,
    ReasoningPiece,
    TextPiece,
    Usage,
)


class UsageCounter:
    """Counts an answer's tokens, and knows which choices have ended."""

    def __init__(self, prompt_tokens: int, choices: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.finishes: list[Finish | None] = [None] * choices
        self._seen = [0] * choices
        self._left = choices

    def add(self, piece: Piece) -> int:
        """How many tokens are new. The engine's own count at the finish has the last word."""
        match piece:
            case TextPiece() | ReasoningPiece() | ArgumentsPiece():
                self._seen[piece.index] += piece.tokens
                return piece.tokens
            case FinishPiece(index, finish):
                before = self._seen[index]
                self._left -= self.finishes[index] is None
                self.finishes[index] = finish
                self._seen[index] = max(before, finish.completion_tokens)
                return self._seen[index] - before
        return 0

    @property
    def is_complete(self) -> bool:
        """Whether every choice has ended."""
        return self._left == 0

    @property
    def completion_tokens(self) -> int:
        return sum(self._seen)

    @property
    def cached_tokens(self) -> int:
        """Of the prompt, found in the engine's cache; 0 until a choice has ended.

        The prompt counts once however many choices share it. What the first choice leaves in the
        cache is found there by the others: the least is what was there before the request.
        """
        return min((finish.cached_tokens for finish in self.finishes if finish), default=0)

    def usage(self) -> Usage:
        """Raises EngineError if a choice has not ended: an answer without its end is broken."""
        if not self.is_complete:
            raise EngineError("The answer broke off before its end.")
        finishes = [finish for finish in self.finishes if finish is not None]
        return Usage(
            self.prompt_tokens,
            sum(finish.completion_tokens for finish in finishes),
            self.cached_tokens,
            sum(finish.reasoning_tokens for finish in finishes),
        )
