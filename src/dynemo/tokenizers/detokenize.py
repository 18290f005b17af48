"""Token ids to text, piece by piece, equal to decoding them all at once.

Decoding each token alone tears characters: a token is a run of bytes, or even a single byte, of
UTF-8. Three kinds of state cover what tokenizers do; none looks back further than it must.

    ByteDetokenizer      tokens are bytes (byte-level BPE): nearly all models of today
    FallbackDetokenizer  tokens are text, and `<0xE2>` tokens stand for bytes (SentencePiece)
    WindowDetokenizer    anything else that can decode a list of ids

A wrong reading shows only on invalid bytes. `tokenizers.decoders.DecodeStream` loses the tail of a
stream and raises on some of them.
"""

from codecs import utf_8_decode
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto

_REPLACEMENT = "\ufffd"


class ByteDetokenizer:
    """The text of a stream whose tokens are runs of bytes.

    `bytes_of` gives a token's bytes, empty for a token that has no text (control tokens). Bytes
    that can never become valid UTF-8 turn into U+FFFD by maximal subparts, as Python's and Rust's
    lossy decoding both do; bytes that a later token may complete are held back.
    """

    __slots__ = ("_bytes_of", "_pending")

    def __init__(self, bytes_of: Callable[[int], bytes]) -> None:
        self._bytes_of = bytes_of
        self._pending = b""

    def feed(self, ids: Sequence[int]) -> str:
        data = b"".join(map(self._bytes_of, ids))
        if self._pending:
            data = self._pending + data
        text, used = utf_8_decode(data, "replace", False)
        self._pending = data[used:]
        return text

    def flush(self) -> str:
        text, _ = utf_8_decode(self._pending, "replace", True)
        self._pending = b""
        return text


class _Reading(Enum):
    """How invalid bytes are read. It changes at most once in a stream, on the first of them."""

    UNDECIDED = auto()  # all bytes so far were valid: both other readings agree
    WHOLE_RUNS = auto()  # as tokenizers: one wrong byte makes every byte of its run a U+FFFD
    LOSSY = auto()  # as plain lossy UTF-8


class FallbackDetokenizer:
    """The text of a stream whose tokens are text or single bytes.

    `piece_of` gives a token's text, its byte as an int, or None for a control token. Up to `strip`
    leading spaces of the whole text are dropped.

    `tokenizers` turns a whole run of byte tokens into U+FFFD when any byte of it is wrong. To wait
    for the end of each run would delay every emoji, so characters go out once they are complete.
    When a run goes wrong before any of it went out, this and all later runs are read as
    `tokenizers` reads them; when a character of it is out already and cannot be taken back, they
    are read as lossy UTF-8. So the whole text is always one of the two.
    """

    __slots__ = ("_is_run_shown", "_piece_of", "_reading", "_run", "_strip")

    def __init__(self, piece_of: Callable[[int], str | int | None], *, strip: int = 0) -> None:
        self._piece_of = piece_of
        self._strip = strip
        self._reading = _Reading.UNDECIDED
        self._run = b""  # bytes of the current run that are not out yet
        self._is_run_shown = False

    def feed(self, ids: Sequence[int]) -> str:
        texts: list[str] = []
        for token_id in ids:
            piece = self._piece_of(token_id)
            if isinstance(piece, str):
                if self._run or self._is_run_shown:
                    texts.append(self._end_run())
                texts.append(piece)
            elif piece is not None:
                texts.append(self._add_byte(piece))
        return self._stripped("".join(texts))

    def flush(self) -> str:
        return self._stripped(self._end_run())

    def _add_byte(self, byte: int) -> str:
        self._run += bytes((byte,))
        if self._reading is _Reading.UNDECIDED:
            try:
                text, used = utf_8_decode(self._run, "strict", False)
            except UnicodeDecodeError:
                self._decide()
            else:
                return self._show(text, used)
        if self._reading is _Reading.LOSSY:
            return self._show(*utf_8_decode(self._run, "replace", False))
        return ""

    def _show(self, text: str, used: int) -> str:
        self._run = self._run[used:]
        self._is_run_shown = self._is_run_shown or bool(text)
        return text

    def _decide(self) -> None:
        self._reading = _Reading.LOSSY if self._is_run_shown else _Reading.WHOLE_RUNS

    def _end_run(self) -> str:
        run = self._run
        if run and self._reading is _Reading.UNDECIDED:  # cut within a character
            self._decide()
        self._run, self._is_run_shown = b"", False
        if self._reading is _Reading.LOSSY:
            return run.decode("utf-8", "replace")
        try:
            return run.decode("utf-8")
        except UnicodeDecodeError:
            return _REPLACEMENT * len(run)

    def _stripped(self, text: str) -> str:
        while self._strip and text:
            if not text.startswith(" "):
                self._strip = 0
            else:
                self._strip, text = self._strip - 1, text[1:]
        return text


class WindowDetokenizer:
    """The text of a stream, by decoding a short window of it again with each token.

    `decode` gives the text of a list of ids; it may depend on the ids before (a space at the start,
    a word that goes on), not on those after. `is_kept` is false for control tokens. A window that
    ends in U+FFFD waits for more, for at most `_PATIENCE` tokens: a window without end would cost
    quadratic time.
    """

    __slots__ = ("_context", "_decode", "_is_kept", "_pending")

    _PATIENCE = 64

    def __init__(
        self, decode: Callable[[Sequence[int]], str], is_kept: Callable[[int], bool]
    ) -> None:
        self._decode = decode
        self._is_kept = is_kept
        self._context: list[int] = []  # the ids whose text went out last
        self._pending: list[int] = []

    def feed(self, ids: Iterable[int]) -> str:
        texts: list[str] = []
        for token_id in filter(self._is_kept, ids):
            self._pending.append(token_id)
            text = self._new_text()
            if text and (not text.endswith(_REPLACEMENT) or len(self._pending) >= self._PATIENCE):
                texts.append(self._settle(text))
        return "".join(texts)

    def flush(self) -> str:
        return self._settle(self._new_text()) if self._pending else ""

    def _new_text(self) -> str:
        known = len(self._decode(self._context)) if self._context else 0
        return self._decode(self._context + self._pending)[known:]

    def _settle(self, text: str) -> str:
        self._context, self._pending = self._pending, []
        return text
