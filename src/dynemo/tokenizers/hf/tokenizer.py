"""A tokenizer out of a checkout's `tokenizer.json`, by the `tokenizers` library.

The library is imported when a tokenizer is loaded: it takes tens of milliseconds.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynemo.errors import ModelError
from dynemo.tokenizers.base import Detokenizer
from dynemo.tokenizers.detokenize import ByteDetokenizer, FallbackDetokenizer, WindowDetokenizer
from dynemo.tokenizers.hf.byte_tables import byte_level_tables
from dynemo.tokenizers.source import HfSource
from dynemo.tokenizers.tables import TokenizerTables

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_LISTS = ("added_tokens_decoder", "extra_special_tokens", "additional_special_tokens")
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class HfTokenizer:
    """Safe to use from several threads at once.

    `file` is a `tokenizer.json`, or what one holds. `settings` is the checkout's
    `tokenizer_config.json`. As transformers does, tokens that it lists and the file lacks are
    added, and its named tokens (`eos_token`, ...) are control tokens.
    Whether BOS and EOS are added is what `tokenizer.json` says: transformers 5 ignores
    `add_bos_token` and `add_eos_token` beside it. For some classes (LlamaTokenizer) transformers 5
    also builds the text splitting anew from the class, and leaves the file's aside; here the file
    is right, as for every other program that reads it.

    Raises ModelError when the file cannot be read.
    """

    def __init__(self, file: Path | bytes, settings: Mapping[str, Any] | None = None) -> None:
        self._file = file
        self._settings = dict(settings or {})
        self._backend = self._load()
        self._literal: Backend | None = None
        self._lock = threading.Lock()
        added = self._backend.get_added_tokens_decoder()
        self._special = frozenset(i for i, token in added.items() if token.special)
        self._vocab_size = _vocab_size(self._backend, added)
        self._decoder = _Decoder(self._backend, self._special)

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        backend = self._backend if parse_special else self._literal_backend()
        try:
            ids: list[int] = backend.encode(text, add_special_tokens=add_special).ids
        except TypeError:
            text.encode()  # raises UnicodeEncodeError, the usual reason, which says more
            raise
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._backend.decode(list(ids), skip_special_tokens=True)
        return text

    def detokenizer(self) -> Detokenizer:
        return self._decoder.detokenizer()

    def token_id(self, text: str) -> int | None:
        token_id: int | None = self._backend.token_to_id(text)
        return token_id

    def token_text(self, token_id: int) -> str | None:
        if not 0 <= token_id < self._vocab_size:
            return None
        text: str | None = self._backend.id_to_token(token_id)
        return text

    def source(self) -> HfSource:
        if isinstance(self._file, bytes):
            return HfSource(self._file, _telling(self._settings))
        try:
            return HfSource(self._file.read_bytes(), _telling(self._settings))
        except OSError as error:
            raise ModelError(f"cannot read {self._file}: {error.strerror or error}") from None

    def lexicon(self) -> TokenizerTables:
        added = self._backend.get_added_tokens_decoder()
        tables = byte_level_tables(self.source().file) if self._decoder.is_byte_level else None
        if tables is None:
            ids = self._backend.get_vocab(with_added_tokens=True)
        else:
            ids = tables.vocab
            ids.update({token.content: token_id for token_id, token in added.items()})
        tokens = [""] * (1 + max(ids.values(), default=-1))
        for text, token_id in ids.items():
            tokens[token_id] = text
        return TokenizerTables(tokens, frozenset(added), tables.merge_lines() if tables else None)

    def _literal_backend(self) -> Backend:
        # Whether control tokens are parsed is a switch on the library's object. Two objects keep
        # one thread's call from turning it under another's.
        with self._lock:
            if self._literal is None:
                self._literal = self._load()
                self._literal.encode_special_tokens = True
            return self._literal

    def _load(self) -> Backend:
        from tokenizers import Tokenizer as Backend

        try:
            if isinstance(self._file, bytes):
                backend = Backend.from_buffer(self._file)
            else:
                backend = Backend.from_file(str(self._file))
        except Exception as error:  # the library raises plain Exception
            raise ModelError(
                f"cannot read {self._name} as a tokenizer: {error}; download it again, or save it "
                "anew with a current transformers (AutoTokenizer.from_pretrained(...)"
                ".save_pretrained(...))"
            ) from None
        backend.no_padding()
        backend.no_truncation()
        try:
            _add_tokens(backend, self._settings)
        except (KeyError, TypeError, ValueError) as error:
            file = self._name.removesuffix("tokenizer.json") + "tokenizer_config.json"
            raise ModelError(
                f"{file} lists tokens that cannot be read "
                f"('added_tokens_decoder': {error}): download it again"
            ) from None
        return backend

    @property
    def _name(self) -> str:
        return "a tokenizer.json" if isinstance(self._file, bytes) else str(self._file)


def _telling(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What `_add_tokens` reads; the rest may be long (old chat templates)."""
    return {k: v for k, v in settings.items() if k in _LISTS or k.endswith("_token")}


def _add_tokens(backend: Backend, settings: Mapping[str, Any]) -> None:
    from tokenizers import AddedToken

    known = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    listed = settings.get("added_tokens_decoder")
    if isinstance(listed, Mapping):
        for _, fields in sorted(listed.items(), key=lambda item: int(item[0])):
            # The library prints what it does not know on stdout.
            token = AddedToken(fields["content"], **{k: fields[k] for k in _FLAGS if k in fields})
            if known.get(token.content) != token:
                known[token.content] = token
                (backend.add_special_tokens if token.special else backend.add_tokens)([token])
    for content in [*named_tokens(settings).values(), *_extra_tokens(settings)]:
        if content not in known or not known[content].special:
            known[content] = AddedToken(content, normalized=False, special=True)
            backend.add_special_tokens([known[content]])


def named_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """The control tokens that a `tokenizer_config.json` gives a name: `bos_token` and so on."""
    extra = settings.get("extra_special_tokens")
    named = {**settings, **extra} if isinstance(extra, Mapping) else settings
    texts = {name: _content(value) for name, value in named.items() if name.endswith("_token")}
    return {name: text for name, text in texts.items() if text}


def _extra_tokens(settings: Mapping[str, Any]) -> list[str]:
    extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens")
    return [text for value in extra if (text := _content(value))] if isinstance(extra, list) else []


def _content(token: object) -> str:
    """A token's text, which older files wrap into an object."""
    value = token.get("content") if isinstance(token, Mapping) else token
    return value if isinstance(value, str) else ""


def _vocab_size(backend: Backend, added: Mapping[int, Any]) -> int:
    size: int = backend.get_vocab_size(with_added_tokens=False)
    if size and backend.id_to_token(size - 1) is None:  # a vocabulary with holes
        size = 1 + max(backend.get_vocab(with_added_tokens=False).values())
    return max(size, *(i + 1 for i in added)) if added else size


class _Decoder:
    """Which of the detokenizers is exact for this tokenizer, with what it needs to know.

    Chosen by the decoder's own description; what is not recognised decodes in windows.
    """

    def __init__(self, backend: Backend, special: frozenset[int]) -> None:
        self._backend = backend
        self._special = special
        steps = _steps(backend)
        kinds = [step["type"] for step in steps]
        self._bytes = _Bytes(backend, special) if kinds == ["ByteLevel"] else None
        self._pieces: _Pieces | None = None
        self._strip = 0
        if self._bytes is None and _is_byte_fallback(steps):
            replaced = [s for s in steps if s["type"] == "Replace"]
            self._pieces = _Pieces(backend, special, replaced)
            self._strip = steps[-1]["start"] if kinds[-1] == "Strip" else 0

    @property
    def is_byte_level(self) -> bool:
        return self._bytes is not None

    def detokenizer(self) -> Detokenizer:
        if self._bytes is not None:
            return ByteDetokenizer(self._bytes.__getitem__)
        if self._pieces is not None:
            return FallbackDetokenizer(self._pieces.__getitem__, strip=self._strip)
        return WindowDetokenizer(self._backend.decode, lambda i: i not in self._special)


def _steps(backend: Backend) -> list[dict[str, Any]]:
    if backend.decoder is None:
        return [{"type": "None"}]
    description = json.loads(backend.decoder.__getstate__())
    steps = description["decoders"] if description["type"] == "Sequence" else [description]
    return [step for step in steps if isinstance(step, dict)]


def _is_byte_fallback(steps: Sequence[Mapping[str, Any]]) -> bool:
    """Replace ..., ByteFallback, Fuse, then perhaps Strip of leading spaces: SentencePiece's."""
    rest = list(steps)
    while rest and rest[0]["type"] == "Replace":
        if "String" not in rest.pop(0)["pattern"]:
            return False
    kinds = [step["type"] for step in rest]
    if kinds == ["ByteFallback", "Fuse", "Strip"]:
        return bool(rest[-1]["content"] == " " and rest[-1]["stop"] == 0)
    return kinds == ["ByteFallback", "Fuse"]


class _Bytes(dict[int, bytes]):
    """Each token's bytes, found out when first asked for: filling it for 256,000 tokens at load
    would cost a quarter of a second."""

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
    """Each token's text or byte, found out when first asked for."""

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
    """GPT-2's: printable Latin-1 stands for itself, the rest is shifted past U+0100."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in visible}
    hidden = [byte for byte in range(0x100) if byte not in set(visible)]
    alphabet.update({chr(0x100 + index): byte for index, byte in enumerate(hidden)})
    return alphabet


_BYTE_OF = _byte_alphabet()
