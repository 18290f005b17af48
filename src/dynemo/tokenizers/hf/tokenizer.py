"""Loads a checkout's `tokenizer.json` with the `tokenizers` library.

The library is imported when a tokenizer is loaded, because the import takes tens of milliseconds.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynemo.errors import ModelError, RequestError
from dynemo.foreign import decode_any_json
from dynemo.limits import MODEL_TEXT_BYTES, VOCABULARY
from dynemo.tokenizers.base import Detokenizer, WholeTexts
from dynemo.tokenizers.detokenize import (
    ByteDetokenizer,
    FallbackDetokenizer,
    WindowDetokenizer,
    with_shown,
)
from dynemo.tokenizers.hf.byte_tables import byte_level_tables
from dynemo.tokenizers.hf.check import check_steps
from dynemo.tokenizers.hf.marked import MarkedEncoder
from dynemo.tokenizers.hf.settings import add_tokens, relevant_settings
from dynemo.tokenizers.source import HfSource
from dynemo.tokenizers.tables import TokenizerTables

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class HfTokenizer:
    """A tokenizer from a `tokenizer.json`. Several threads may use it at once.

    `file` is the path of a `tokenizer.json`, or its content. `settings` is the checkout's
    `tokenizer_config.json`. As in transformers, tokens that the settings list and the file lacks
    are added, and the settings' named tokens (`eos_token`, ...) are control tokens.

    `tokenizer.json` decides whether BOS and EOS are added: transformers 5 also ignores
    `add_bos_token` and `add_eos_token` if that file exists. For some classes (LlamaTokenizer)
    transformers 5 ignores the file's pre-tokenizer and builds its own. This class follows the file,
    as every other program does.

    Raises ModelError if the file cannot be read.
    """

    def __init__(self, file: Path | bytes, settings: Mapping[str, Any] | None = None) -> None:
        self._file = file
        self._settings = dict(settings or {})
        self._backend = self._load()
        self._literal: Backend | None = None
        self._marked: MarkedEncoder | None = None
        self._lock = threading.Lock()
        added = self._backend.get_added_tokens_decoder()
        self._special = frozenset(i for i, token in added.items() if token.special)
        self._vocab_size = _vocab_size(self._backend, added)
        self._check_size(self._vocab_size)
        self._decoder = _Decoder(self._backend, self._special)

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        backend = self._backend if parse_special else self._literal_backend()
        with _errors_of(text):
            # A batch of one: `encode` keeps the interpreter's lock, and all streams would wait.
            [found] = backend.encode_batch_fast([text], add_special_tokens=add_special)
        ids: list[int] = found.ids
        return ids

    def encode_marked(self, text: str, marks: Mapping[str, str]) -> list[int]:
        with self._lock:
            if self._marked is None:
                self._marked = MarkedEncoder(self._backend, self._load())
        with _errors_of(text):
            return self._marked.encode(text, marks)

    def whole_texts(self) -> WholeTexts:
        added = self._backend.get_added_tokens_decoder().values()
        control = frozenset(token.content for token in added if token.special)
        is_folded = _folds(self._backend) and any(t.special and t.normalized for t in added)
        return WholeTexts(control, frozenset(t.content for t in added) - control, is_folded)

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._backend.decode(list(ids), skip_special_tokens=True)
        return text

    def detokenizer(self, shown: Collection[int] = ()) -> Detokenizer:
        return self._decoder.detokenizer({i: self.token_text(i) or "" for i in shown})

    def token_id(self, text: str) -> int | None:
        token_id: int | None = self._backend.token_to_id(text)
        return token_id

    def token_text(self, token_id: int) -> str | None:
        if not 0 <= token_id < self._vocab_size:
            return None
        text: str | None = self._backend.id_to_token(token_id)
        return text

    def source(self) -> HfSource:
        return HfSource(self._read(), relevant_settings(self._settings))

    def tables(self) -> TokenizerTables:
        added = self._backend.get_added_tokens_decoder()
        found = byte_level_tables(self.source().file) if self._decoder.is_byte_level else None
        if found is None:
            ids = self._backend.get_vocab(with_added_tokens=True)
        else:
            ids = found.vocab
            ids.update({token.content: token_id for token_id, token in added.items()})
        size = 1 + max(ids.values(), default=-1)
        self._check_size(size)
        tokens = [""] * size
        for text, token_id in ids.items():
            tokens[token_id] = text
        return TokenizerTables(tokens, frozenset(added), found.merge_lines() if found else None)

    def _check_size(self, size: int) -> None:
        if size > VOCABULARY:
            raise ModelError(
                f"The tokenizer in {self._label()} has the token id {size - 1:,}, but at most "
                f"{VOCABULARY:,} ids are possible. Download it again."
            )

    def _read(self) -> bytes:
        if isinstance(self._file, bytes):
            return self._file
        try:
            with self._file.open("rb") as file:
                data = file.read(MODEL_TEXT_BYTES + 1)
        except OSError as error:
            raise ModelError(f'"{self._file}" cannot be read: {error.strerror or error}.') from None
        if len(data) > MODEL_TEXT_BYTES:
            raise ModelError(
                f'"{self._file}" has more than {MODEL_TEXT_BYTES:,} bytes, which no tokenizer '
                "needs. Download it again."
            )
        return data

    def _literal_backend(self) -> Backend:
        # The library stores on its object whether control tokens are parsed. A second object keeps
        # one thread's call from changing another's.
        with self._lock:
            if self._literal is None:
                self._literal = self._load()
                self._literal.encode_special_tokens = True
            return self._literal

    def _load(self) -> Backend:
        from tokenizers import Tokenizer as Backend

        data = self._read()
        check_steps(data, self._label())
        try:
            backend = Backend.from_buffer(data)
        except BaseException as error:  # the library raises plain Exception, and panics
            if not isinstance(error, Exception) and not is_panic(error):
                raise
            raise ModelError(
                f"Cannot load {self._label()} as a tokenizer: {error}. Download it again, or save "
                "it again with a current transformers "
                "(AutoTokenizer.from_pretrained(...).save_pretrained(...))."
            ) from None
        backend.no_padding()
        backend.no_truncation()
        try:
            add_tokens(backend, self._settings)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"Cannot read the tokens in {self._label('tokenizer_config.json')} "
                f'("added_tokens_decoder": {error}). Download it again.'
            ) from None
        return backend

    def _label(self, sibling: str = "") -> str:
        """Returns this file, or one beside it, as a message names it."""
        if isinstance(self._file, bytes):
            return f"the model's {sibling or 'tokenizer.json'}"
        return f'"{self._file.with_name(sibling) if sibling else self._file}"'


@contextmanager
def _errors_of(text: str) -> Iterator[None]:
    """Translates what the library raises for a text."""
    try:
        yield
    except TypeError:
        text.encode()  # raises UnicodeEncodeError, the usual cause, with a clearer message
        raise
    except BaseException as error:
        if not is_panic(error):
            raise
        raise RequestError(f"The model's tokenizer cannot split this text: {error}.") from None


def is_panic(error: BaseException) -> bool:
    """Whether the library has given up inside. Its exception is not a kind of Exception."""
    return type(error).__name__ == "PanicException"


def _vocab_size(backend: Backend, added: Mapping[int, Any]) -> int:
    size: int = backend.get_vocab_size(with_added_tokens=False)
    if size and backend.id_to_token(size - 1) is None:  # the vocabulary has gaps
        size = 1 + max(backend.get_vocab(with_added_tokens=False).values())
    return max(size, *(i + 1 for i in added)) if added else size


class _Decoder:
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


def _folds(backend: Backend) -> bool:
    """Whether the normalization may turn other characters into those of a token."""
    if backend.normalizer is None:
        return False
    description = decode_any_json(backend.normalizer.__getstate__())
    steps = description.get("normalizers", [description])
    return any(step["type"] not in ("Prepend", "Replace") for step in steps)


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
