"""Loads a checkout's `tokenizer.json` with the `tokenizers` library.

The library is imported when a tokenizer is loaded, because the import takes tens of milliseconds.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynemo.errors import ModelError, RequestError
from dynemo.limits import ADDED_TOKENS, MODEL_TEXT_BYTES, VOCABULARY
from dynemo.tokenizers.base import Detokenizer
from dynemo.tokenizers.hf.byte_tables import byte_level_tables
from dynemo.tokenizers.hf.check import check_steps
from dynemo.tokenizers.hf.decoder import Decoder
from dynemo.tokenizers.source import HfSource
from dynemo.tokenizers.tables import TokenizerTables

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_LISTS = ("added_tokens_decoder", "extra_special_tokens", "additional_special_tokens")


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
        try:
            # A batch of one: `encode` keeps the interpreter's lock, and all streams would wait.
            [found] = backend.encode_batch_fast([text], add_special_tokens=add_special)
        except TypeError:
            text.encode()  # raises UnicodeEncodeError, the usual cause, with a clearer message
            raise
        except BaseException as error:
            if not is_panic(error):
                raise
            raise RequestError(f"The model's tokenizer cannot split this text: {error}.") from None
        ids: list[int] = found.ids
        return ids

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
        return HfSource(self._read(), _relevant_settings(self._settings))

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
            _add_tokens(backend, self._settings)
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


def is_panic(error: BaseException) -> bool:
    """Whether the library has given up inside. Its exception is not a kind of Exception."""
    return type(error).__name__ == "PanicException"


def _relevant_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that `_add_tokens` reads. Others may be long (old chat templates)."""
    return {k: v for k, v in settings.items() if k in _LISTS or k.endswith("_token")}


def _add_tokens(backend: Backend, settings: Mapping[str, Any]) -> None:
    from tokenizers import AddedToken

    known = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    listed = settings.get("added_tokens_decoder")
    tokens: list[AddedToken] = []
    if isinstance(listed, Mapping):
        if len(listed) > ADDED_TOKENS:
            raise ValueError(f"it lists {len(listed):,} tokens")
        for _, fields in sorted(listed.items(), key=lambda item: int(item[0])):
            # The library prints a warning on stdout for any unknown field.
            token = AddedToken(fields["content"], **{k: fields[k] for k in _FLAGS if k in fields})
            if known.get(token.content) != token:
                known[token.content] = token
                tokens.append(token)
    for content in [*named_tokens(settings).values(), *_extra_tokens(settings)]:
        if content not in known or not known[content].special:
            known[content] = AddedToken(content, normalized=False, special=True)
            tokens.append(known[content])
    # The library builds its tables again at each call, so few calls are much faster.
    for is_special, run in groupby(tokens, lambda token: bool(token.special)):
        (backend.add_special_tokens if is_special else backend.add_tokens)(list(run))


def named_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """Returns the named control tokens of a `tokenizer_config.json`, by name (`bos_token`, ...)."""
    extra = settings.get("extra_special_tokens")
    named = {**settings, **extra} if isinstance(extra, Mapping) else settings
    texts = {name: _content(value) for name, value in named.items() if name.endswith("_token")}
    return {name: text for name, text in texts.items() if text}


def _extra_tokens(settings: Mapping[str, Any]) -> list[str]:
    extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens")
    return [text for value in extra if (text := _content(value))] if isinstance(extra, list) else []


def _content(token: object) -> str:
    """Returns a token's text, which older files wrap in an object."""
    value = token.get("content") if isinstance(token, Mapping) else token
    return value if isinstance(value, str) else ""


def _vocab_size(backend: Backend, added: Mapping[int, Any]) -> int:
    size: int = backend.get_vocab_size(with_added_tokens=False)
    if size and backend.id_to_token(size - 1) is None:  # the vocabulary has gaps
        size = 1 + max(backend.get_vocab(with_added_tokens=False).values())
    return max(size, *(i + 1 for i in added)) if added else size
