"""Counts the tokens of an answer, piece by piece. Pure."""

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
    """Counts an answer's tokens, and tracks which choices have ended."""

    def __init__(self, prompt_tokens: int, choices: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.finishes: list[Finish | None] = [None] * choices
        self._seen = [0] * choices
        self._left = choices

    def add(self, piece: Piece) -> int:
        """Adds a piece and returns its number of new tokens.

        The engine's count at the finish is final.
        """
        # The type first: nearly every piece is text, and `match` is several times slower.
        if type(piece) is TextPiece or isinstance(piece, ReasoningPiece | ArgumentsPiece):
            self._seen[piece.index] += piece.tokens
            return piece.tokens
        if isinstance(piece, FinishPiece):
            return self._finish(piece.index, piece.finish)
        return 0

    def _finish(self, index: int, finish: Finish) -> int:
        before = self._seen[index]
        self._left -= self.finishes[index] is None
        self.finishes[index] = finish
        self._seen[index] = max(before, finish.completion_tokens)
        return self._seen[index] - before

    @property
    def is_complete(self) -> bool:
        """Whether every choice has ended."""
        return self._left == 0

    @property
    def completion_tokens(self) -> int:
        return sum(self._seen)

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that were in the engine's cache, or 0 until a choice has ended.

        All choices share one prompt, which counts once. Later choices also find in the cache what
        the first choice put there. So the minimum over the choices is the earlier part.
        """
        return min((finish.cached_tokens for finish in self.finishes if finish), default=0)

    def usage(self) -> Usage:
        """Returns the usage.

        Raises EngineError if a choice has not ended, because the answer is incomplete.
        """
        if not self.is_complete:
            raise EngineError("The answer ended before it was complete.")
        finishes = [finish for finish in self.finishes if finish is not None]
        return Usage(
            self.prompt_tokens,
            sum(finish.completion_tokens for finish in finishes),
            self.cached_tokens,
            sum(finish.reasoning_tokens for finish in finishes),
        )
