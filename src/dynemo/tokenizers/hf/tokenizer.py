"""Loads a checkout's `tokenizer.json` with the `tokenizers` library.

The library is imported when a tokenizer is loaded, because the import takes tens of milliseconds.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynemo.errors import ModelError, RequestError
from dynemo.foreign import decode_any_json
from dynemo.limits import MODEL_TEXT_BYTES, VOCABULARY
from dynemo.tokenizers.base import Detokenizer, WholeTexts
from dynemo.tokenizers.hf.byte_tables import byte_level_tables
from dynemo.tokenizers.hf.check import check_steps
from dynemo.tokenizers.hf.decoder import Decoder
from dynemo.tokenizers.hf.marked import MarkedEncoder
from dynemo.tokenizers.hf.settings import add_tokens, relevant_settings
from dynemo.tokenizers.source import HfSource
from dynemo.tokenizers.tables import TokenizerTables

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend


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
        self._decoder = Decoder(self._backend, self._special)

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

    def token_bytes(self, token_id: int) -> bytes:
        return self._decoder.token_bytes(token_id)

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


def _folds(backend: Backend) -> bool:
    """Whether the normalization may turn other characters into those of a token."""
    if backend.normalizer is None:
        return False
    description = decode_any_json(backend.normalizer.__getstate__())
    steps = description.get("normalizers", [description])
    return any(step["type"] not in ("Prepend", "Replace") for step in steps)
