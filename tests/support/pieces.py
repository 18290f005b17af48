"""Makes pieces for tests."""

from dynemo.messages.answer import Finish, FinishPiece, Piece, TextPiece


def ended(index: int, text: str, tokens: int, finish: Finish) -> list[Piece]:
    """Returns the last batch of a choice: the last text, if any, and the finish."""
    last: list[Piece] = [TextPiece(index, text, tokens)] if text or tokens else []
    return [*last, FinishPiece(index, finish)]
