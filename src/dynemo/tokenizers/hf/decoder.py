"""Turns ids into text as the decoder of a `tokenizer.json` does."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dynemo.foreign import decode_any_json
from dynemo.tokenizers.base import Detokenizer
from dynemo.tokenizers.detokenize import (
    ByteDetokenizer,
    FallbackDetokenizer,
    WindowDetokenizer,
    with_shown,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Decoder:
    """Selects the detokenizer that is exact for this tokenizer, and holds its data.

    It reads the description of the library's decoder. An unknown decoder gets a window.
    """

    def __init__(self, backend: Backend, special: frozenset[int]) -> None:
        self._backend = backend
        self._special = special
        steps = _steps(backend)
        types = [step["type"] for step in steps]
        self._bytes = _Bytes(backend, special) if types == ["ByteLevel"] else None
        self._pieces: _Pieces | None = None
        self._strip = 0
        if self._bytes is None and _is_byte_fallback(steps):
            replaced = [s for s in steps if s["type"] == "Replace"]
            self._pieces = _Pieces(backend, special, replaced)
            self._strip = steps[-1]["start"] if types[-1] == "Strip" else 0

    @property
    def is_byte_level(self) -> bool:
        return self._bytes is not None

    def detokenizer(self, shown: Mapping[int, str]) -> Detokenizer:
        if self._bytes is not None:
            spelled = {i: text.encode() for i, text in shown.items()}
            return ByteDetokenizer(with_shown(self._bytes.__getitem__, spelled))
        if self._pieces is not None:
            pieces: dict[int, str | int | None] = {**shown}
            piece_of = with_shown(self._pieces.__getitem__, pieces)
            return FallbackDetokenizer(piece_of, strip=self._strip)
        return WindowDetokenizer(self._backend.decode, lambda i: i not in self._special, shown)

    def token_bytes(self, token_id: int) -> bytes:
        if self._bytes is not None:
            return self._bytes[token_id]
        if self._pieces is not None:
            piece = self._pieces[token_id]
            return bytes((piece,)) if isinstance(piece, int) else (piece or "").encode()
        # Behind itself, so that the token does not count as the start of the text.
        twice = self._backend.decode([token_id, token_id])
        return twice[len(self._backend.decode([token_id])) :].encode()


def _steps(backend: Backend) -> list[dict[str, Any]]:
    if backend.decoder is None:
        return [{"type": "None"}]
    description = decode_any_json(backend.decoder.__getstate__())
    steps = description["decoders"] if description["type"] == "Sequence" else [description]
    return [step for step in steps if isinstance(step, dict)]


def _is_byte_fallback(steps: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the decoder is SentencePiece's: Replace ..., ByteFallback, Fuse, and maybe Strip."""
    rest = list(steps)
    while rest and rest[0]["type"] == "Replace":
        if "String" not in rest.pop(0)["pattern"]:
            return False
    types = [step["type"] for step in rest]
    if types == ["ByteFallback", "Fuse", "Strip"]:
        return bool(rest[-1]["content"] == " " and rest[-1]["stop"] == 0)
    return types == ["ByteFallback", "Fuse"]


class _Bytes(dict[int, bytes]):
    """Each token's bytes, computed on first use.

    Filling it at load would take a quarter of a second for 256,000 tokens.
    """

    def __init__(self, backend: Backend, special: frozenset[int]) -> None:
        super().__init__()
        self._backend = backend
        self._special = special

    def __missing__(self, token_id: int) -> bytes:
        data = b""
        if token_id not in self._special:
            text = self._backend.id_to_token(token_id) or ""
            try:
                data = bytes(map(_BYTE_OF.__getitem__, text))
            except KeyError:  # an added token with a character outside the byte alphabet
                data = text.encode()
        self[token_id] = data
        return data


class _Pieces(dict[int, str | int | None]):
    """Each token's text or byte, computed on first use."""

    def __init__(
        self, backend: Backend, special: frozenset[int], replaced: Sequence[Mapping[str, Any]]
    ) -> None:
        super().__init__()
        self._backend = backend
        self._special = special
        self._replaced = [(step["pattern"]["String"], step["content"]) for step in replaced]

    def __missing__(self, token_id: int) -> str | int | None:
        piece: str | int | None = None
        text = None if token_id in self._special else self._backend.id_to_token(token_id)
        if text is not None:
            for old, new in self._replaced:
                text = text.replace(old, new)
            byte = _BYTE_TOKEN.fullmatch(text)
            piece = int(byte[1], 16) if byte else text
        self[token_id] = piece
        return piece


def _byte_alphabet() -> dict[str, int]:
    """Returns GPT-2's alphabet: printable Latin-1 maps to itself, other bytes map past U+0100."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in visible}
    hidden = [byte for byte in range(0x100) if byte not in set(visible)]
    alphabet.update({chr(0x100 + index): byte for index, byte in enumerate(hidden)})
    return alphabet


_BYTE_OF = _byte_alphabet()
