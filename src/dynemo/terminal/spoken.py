"""Shows an answer in a terminal: its content plain, the model's thoughts and calls faint."""

from collections.abc import Callable

from dynemo.messages.answer import ArgumentsPiece, Piece, ReasoningPiece, TextPiece, ToolCallPiece
from dynemo.spelling import visible
from dynemo.terminal.screen import dim


class Spoken:
    """The state of one answer. `send` takes what the terminal gets."""

    def __init__(self, send: Callable[[str], None]) -> None:
        self._send = send
        self._kind: type[Piece] | None = None
        self.is_line_open = False  #: the last line has no end yet

    def write(self, piece: Piece) -> None:
        match piece:
            case TextPiece(text=text) if text:
                self._turn_to(TextPiece)
                self._say(visible(text), text)
            case ReasoningPiece(text=text) if text:
                self._turn_to(ReasoningPiece)
                self._say(dim(text), text)
            case ToolCallPiece(name=name):
                self._turn_to(ToolCallPiece, always=True)
                self._say(dim(f"→ {name} "), name)
            case ArgumentsPiece(text=text) if text:
                self._say(dim(text), text)

    def _turn_to(self, kind: type[Piece], *, always: bool = False) -> None:
        if self._kind is not None and (always or kind is not self._kind):
            if self.is_line_open:
                self._say("\n", "\n")
            if self._kind is ReasoningPiece:
                self._send("\n")
        self._kind = kind

    def _say(self, shown: str, text: str) -> None:
        self._send(shown)
        self.is_line_open = not text.endswith("\n")
