"""Turns token ids into text step by step, with the same result as decoding them all at once.

Decoding each token alone tears characters: a token is a run of UTF-8 bytes, or even a single byte.
Three classes cover the tokenizers in use. Each keeps as little state as its tokens allow.

    ByteDetokenizer      tokens are bytes (byte-level BPE): nearly all current models
    FallbackDetokenizer  tokens are text, and `<0xE2>` tokens stand for bytes (SentencePiece)
    WindowDetokenizer    any other tokenizer that can decode a list of ids

The classes differ only on invalid bytes. `tokenizers.decoders.DecodeStream` is not used: on some of
these it loses the tail of a stream, and on others it raises.
"""

from codecs import utf_8_decode
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum, auto
from types import MappingProxyType
from typing import TypeVar

_REPLACEMENT = "\ufffd"

_Value = TypeVar("_Value")


def with_shown(
    table: Callable[[int], _Value], shown: Mapping[int, _Value]
) -> Callable[[int], _Value]:
    """Returns `table` with other values for the ids `shown`; `table` itself if there are none."""
    if not shown:
        return table
    return lambda token_id: shown[token_id] if token_id in shown else table(token_id)


class ByteDetokenizer:
    """Decodes a stream whose tokens are runs of bytes.

    `bytes_of` returns a token's bytes; a token without text (a control token) has none. Bytes that
    can never become valid UTF-8 turn into U+FFFD by maximal subparts, as in the lossy decoding of
    Python and Rust. Bytes that a later token may complete are held back.
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


class _Mode(Enum):
    """How invalid bytes are decoded. It changes at most once in a stream, at the first invalid
    byte.
    """

    UNDECIDED = auto()  # all bytes so far were valid, so both other modes agree
    WHOLE_RUNS = auto()  # as `tokenizers`: one wrong byte turns each byte of its run into U+FFFD
    LOSSY = auto()  # as plain lossy UTF-8 decoding


class FallbackDetokenizer:
    """Decodes a stream whose tokens are text or single bytes.

    `piece_of` returns a token's text, its byte as an int, or None for a control token. Up to
    `strip` leading spaces of the whole text are dropped.

    `tokenizers` turns a whole run of byte tokens into U+FFFD if any byte of it is wrong. Waiting
    for the end of each run would delay every emoji, so this class emits characters once they are
    complete. If a run goes wrong before any of it was emitted, this run and all later ones are
    decoded as `tokenizers` does. If a character of the run was emitted already, they are decoded as
    lossy UTF-8. So the whole text is always one of the two.
    """

    __slots__ = ("_is_run_shown", "_mode", "_piece_of", "_run", "_strip")

    def __init__(self, piece_of: Callable[[int], str | int | None], *, strip: int = 0) -> None:
        self._piece_of = piece_of
        self._strip = strip
        self._mode = _Mode.UNDECIDED
        self._run = b""  # bytes of the current run that are not emitted yet
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
        if self._mode is _Mode.UNDECIDED:
            try:
                text, used = utf_8_decode(self._run, "strict", False)
            except UnicodeDecodeError:
                self._decide()
            else:
                return self._show(text, used)
        if self._mode is _Mode.LOSSY:
            return self._show(*utf_8_decode(self._run, "replace", False))
        return ""

    def _show(self, text: str, used: int) -> str:
        self._run = self._run[used:]
        self._is_run_shown = self._is_run_shown or bool(text)
        return text

    def _decide(self) -> None:
        self._mode = _Mode.LOSSY if self._is_run_shown else _Mode.WHOLE_RUNS

    def _end_run(self) -> str:
        run = self._run
        if run and self._mode is _Mode.UNDECIDED:  # the run ends within a character
            self._decide()
        self._run, self._is_run_shown = b"", False
        if self._mode is _Mode.LOSSY:
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
    """Decodes a stream by decoding a short window of it again with each token.

    `decode` returns the text of a list of ids. It may depend on earlier ids (a space at the start,
    a word that continues), but not on later ones. `is_kept` is false for control tokens. Those in
    `shown` have the text that stands there. A window that ends in U+FFFD waits for at most
    `_MAX_PENDING` tokens: without a limit the cost would be quadratic.
    """

    __slots__ = ("_context", "_decode", "_is_kept", "_pending", "_shown")

    _MAX_PENDING = 64

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        is_kept: Callable[[int], bool],
        shown: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        self._decode = decode
        self._is_kept = is_kept
        self._shown = shown
        self._context: list[int] = []  # the ids that were emitted last
        self._pending: list[int] = []

    def feed(self, ids: Iterable[int]) -> str:
        texts: list[str] = []
        for token_id in ids:
            if token_id in self._shown:
                texts += (self.flush(), self._shown[token_id])
                continue
            if not self._is_kept(token_id):
                continue
            self._pending.append(token_id)
            text = self._new_text()
            if text and (
                not text.endswith(_REPLACEMENT) or len(self._pending) >= self._MAX_PENDING
            ):
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
