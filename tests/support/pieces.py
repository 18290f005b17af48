"""Short ways to write pieces."""

from dynemo.messages.answer import Finish, FinishPiece, Piece, TextPiece


def ended(index: int, text: str, tokens: int, finish: Finish) -> list[Piece]:
    """The last batch of a choice: what its last step added, and its finish."""
    last: list[Piece] = [TextPiece(index, text, tokens)] if text or tokens else []
    return [*last, FinishPiece(index, finish)]
