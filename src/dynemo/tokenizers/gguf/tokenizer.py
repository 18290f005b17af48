"""The tokenizer in a GGUF, with the same ids as in llama.cpp.

`load_tokenizer` selects one by `tokenizer.ggml.model`. The code follows
`llama_vocab::impl::tokenize` and `token_to_piece` in llama.cpp's `llama-vocab.cpp`.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from dynemo.errors import ModelError, RequestError
from dynemo.spelling import quoted
from dynemo.tokenizers.base import Detokenizer, WholeTexts, no_plain_form
from dynemo.tokenizers.detokenize import ByteDetokenizer, with_shown
from dynemo.tokenizers.gguf.bpe import BYTE_ALPHABET, SPACE, load_bpe
from dynemo.tokenizers.gguf.special import SpecialTokens
from dynemo.tokenizers.gguf.spm import Spm
from dynemo.tokenizers.gguf.tables import source_of, tables_of
from dynemo.tokenizers.gguf.vocab import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    SpecialIds,
    Vocabulary,
    flag,
    load_vocabulary,
)
from dynemo.tokenizers.source import GgufSource
from dynemo.tokenizers.tables import TokenizerTables

_SURROGATE = re.compile("[\ud800-\udfff]")
_BYTE_TOKEN = re.compile("<0x([0-9A-Fa-f]{2})>")
_BYTE_OF = {char: byte for byte, char in enumerate(BYTE_ALPHABET)}


class Encoder(Protocol):
    """Turns text without special tokens into ids."""

    def encode(self, text: str) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Rules:
    """How a tokenizer uses its encoder.

    `spell` returns the bytes of a normal token. `adds_bos`, `adds_eos` and `prefixes_space` apply
    if the metadata is silent; `always_adds_bos` overrides the metadata. `prefixes_space` puts a
    space before a text at the start or after a special token.
    """

    spell: Callable[[str], bytes]
    adds_bos: bool = False
    always_adds_bos: bool = False
    adds_eos: bool = False
    adds_sep: bool = False  #: then no EOS is added, whatever the file says
    escapes_spaces: bool = False
    prefixes_space: bool = False


class LlamaTokenizer:
    """A GGUF's tokenizer. It implements `dynemo.tokenizers.base.Tokenizer`.

    `special` holds the ids with a role, including all ids that end a generation (`special.eog`).
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        encoder: Encoder,
        rules: Rules,
        metadata: Mapping[str, object],
    ) -> None:
        self.special: SpecialIds = vocabulary.special
        self.adds_bos = rules.always_adds_bos or flag(metadata, "add_bos_token", rules.adds_bos)
        self._adds_sep = rules.adds_sep
        self.adds_eos = not self._adds_sep and flag(metadata, "add_eos_token", rules.adds_eos)
        self._vocabulary = vocabulary
        self._encoder = encoder
        self._escapes_spaces = rules.escapes_spaces
        self._prefixes_space = rules.prefixes_space and flag(metadata, "add_space_prefix", True)
        self._special_tokens = SpecialTokens(vocabulary)
        self._pieces = _Pieces(vocabulary, rules.spell)
        self._is_byte_level = rules.spell is _spelled_bytes
        self._source = source_of(metadata)

    @property
    def vocab_size(self) -> int:
        return len(self._vocabulary.tokens)

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Returns the same ids as llama.cpp's `/tokenize`.

        Raises RequestError for a lone surrogate: it has no UTF-8 form, so no model can take it.
        """
        _check_surrogates(text)
        ids: list[int] = []
        if add_special and self.adds_bos and self.special.bos is not None:
            ids.append(self.special.bos)
        ids += self._encode_parts(self._special_tokens.split(text, parse_special))
        if add_special and self.adds_eos and self.special.eos is not None:
            ids.append(self.special.eos)
        if add_special and self._adds_sep and self.special.sep is not None:
            ids.append(self.special.sep)
        return ids

    def encode_marked(self, text: str, marks: Mapping[str, str]) -> list[int]:
        _check_surrogates(text)
        parts = self._special_tokens.split(text, True)
        table = {ord(mark): meant for mark, meant in marks.items()}
        plain = [part if isinstance(part, int) else part.translate(table) for part in parts]
        ids = self._encode_parts(plain)
        wanted = sum(map(self._is_control, (part for part in parts if isinstance(part, int))))
        if sum(map(self._is_control, ids)) == wanted:
            return ids
        # The vocabulary itself makes a control token of its text (SentencePiece): cut such a text.
        cut = re.compile("(?<=[" + re.escape("".join(marks)) + "])")
        ids = self._encode_parts(
            [
                piece if isinstance(piece, int) else piece.translate(table)
                for part in parts
                for piece in ([part] if isinstance(part, int) else cut.split(part))
                if piece != ""
            ]
        )
        if sum(map(self._is_control, ids)) != wanted:
            raise no_plain_form()
        return ids

    def _is_control(self, token_id: int) -> bool:
        is_control = self._vocabulary.attributes[token_id] & CONTROL
        return bool(is_control) and token_id != self.special.unk

    def _encode_parts(self, parts: Sequence[str | int]) -> list[int]:
        """Returns the ids of special tokens and of the texts between them."""
        ids: list[int] = []
        starts_word = self._prefixes_space
        for part in parts:
            if isinstance(part, int):
                ids.append(part)
                starts_word = self._prefixes_space
                continue
            if starts_word:
                part = " " + part
            if self._escapes_spaces:
                part = part.replace(" ", SPACE)
            ids += self._encoder.encode(part)
            starts_word = False
        return ids

    def whole_texts(self) -> WholeTexts:
        return self._special_tokens.texts()

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of the ids.

        As in a stream, it keeps a leading space of the vocabulary.
        """
        return b"".join(map(self._pieces.__getitem__, ids)).decode("utf-8", "replace")

    def detokenizer(self, shown: Collection[int] = ()) -> Detokenizer:
        spelled = {i: _plain_bytes(self._vocabulary.tokens[i]) for i in shown}
        return ByteDetokenizer(with_shown(self._pieces.__getitem__, spelled))

    def token_id(self, text: str) -> int | None:
        return self._vocabulary.ids.get(text)

    def token_text(self, token_id: int) -> str | None:
        tokens = self._vocabulary.tokens
        return tokens[token_id] if 0 <= token_id < len(tokens) else None

    def token_bytes(self, token_id: int) -> bytes:
        """Returns the token's bytes in a text. A control token has none."""
        return self._pieces[token_id]

    def source(self) -> GgufSource:
        return self._source

    def tables(self) -> TokenizerTables:
        return tables_of(self._vocabulary, self._source, is_byte_level=self._is_byte_level)


def _check_surrogates(text: str) -> None:
    if not text.isascii() and (found := _SURROGATE.search(text)):
        raise RequestError(
            f"The text holds the lone surrogate U+{ord(found[0]):04X}, which is not a "
            "character. Remove it."
        )


class _Pieces(dict[int, bytes]):
    """Maps an id to the bytes that it stands for. Filled as ids occur."""

    def __init__(self, vocabulary: Vocabulary, spell: Callable[[str], bytes]) -> None:
        super().__init__()
        self._vocabulary = vocabulary
        self._spell = spell

    def __missing__(self, token_id: int) -> bytes:
        tokens = self._vocabulary.tokens
        if not 0 <= token_id < len(tokens):
            raise RequestError(
                f"The token id {token_id} is out of range. Valid ids are 0 to {len(tokens) - 1}."
            )
        if token_id == self._vocabulary.special.unk and self._vocabulary.tokenizer_model == "bert":
            piece = _plain_bytes(tokens[token_id])  # whatever its type in the file
        else:
            piece = self._piece(tokens[token_id], self._vocabulary.attributes[token_id])
        self[token_id] = piece
        return piece

    def _piece(self, text: str, attribute: int) -> bytes:
        if attribute & (CONTROL | UNKNOWN):
            return b""
        if attribute & BYTE and (byte := _BYTE_TOKEN.fullmatch(text)):
            return bytes.fromhex(byte[1])
        if attribute & NORMAL or self._vocabulary.tokenizer_model in _ALL_SPELLED:
            return self._spell(text)
        return _plain_bytes(text) if attribute & USER_DEFINED else b""


def _plain_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _spaced_bytes(text: str) -> bytes:
    return _plain_bytes(text.replace(SPACE, " "))


def _spelled_bytes(text: str) -> bytes:
    """Returns the bytes that a token in GPT-2's alphabet spells (`llama_decode_text`)."""
    try:
        return bytes([_BYTE_OF[char] for char in text])
    except KeyError:
        pass
    piece = b""
    for char in text:
        if char in _BYTE_OF:
            piece += bytes([_BYTE_OF[char]])
        else:
            # llama.cpp prints such a token like this. Well-made vocabularies have none.
            hexadecimal = char.encode("utf-8", "surrogateescape").hex()
            piece += f"[UNK_BYTE_0x{hexadecimal}{text}]".encode("utf-8", "surrogateescape")
    return piece


#: Tokenizers that spell user-defined and untyped tokens like normal tokens.
_ALL_SPELLED = ("rwkv", "plamo2", "plamo3")

#: `tokenizer.ggml.model` -> its common name. Every other value is refused by name.
SUPPORTED = {
    "llama": "SPM",
    "gpt2": "BPE",
    "gemma4": "BPE",
    "bert": "WordPiece",
    "t5": "Unigram",
    "rwkv": "RWKV",
    "plamo2": "PLaMo-2",
    "plamo3": "PLaMo-3",
    "hybriddna": "DNA",
    "whitespace": "words",
}
_REFUSED = {
    "no_vocab": " (a model without a vocabulary)",
    "none": " (a model without a vocabulary)",
}


def load_tokenizer(metadata: Mapping[str, object]) -> LlamaTokenizer:
    """Returns the tokenizer that a GGUF's metadata describes.

    Raises ModelError if the metadata holds no tokenizer, or an unsupported one (named in the
    message).
    """
    model = metadata.get("tokenizer.ggml.model")
    if isinstance(model, str) and model not in SUPPORTED:
        supported = ", ".join(f"{key} ({name})" for key, name in SUPPORTED.items())
        raise ModelError(
            f"The GGUF's tokenizer has the type {quoted(model)}{_REFUSED.get(model, '')}, which "
            f"dynemo-run does not support. It supports {supported}."
        )
    vocabulary = load_vocabulary(metadata)
    encoder, rules = _load(vocabulary, metadata)
    tokenizer = LlamaTokenizer(vocabulary, encoder, rules, metadata)
    _check_added(tokenizer)
    return tokenizer


def _load(vocabulary: Vocabulary, metadata: Mapping[str, object]) -> tuple[Encoder, Rules]:
    # Uncommon tokenizers are imported on demand, to keep the start fast.
    if vocabulary.tokenizer_model == "llama":
        rules = Rules(_spaced_bytes, adds_bos=True, escapes_spaces=True, prefixes_space=True)
        return Spm(vocabulary), rules
    if vocabulary.tokenizer_model == "t5":
        from dynemo.tokenizers.gguf.unigram import Unigram

        return Unigram(vocabulary, metadata), Rules(_spaced_bytes, adds_eos=True)
    if vocabulary.tokenizer_model == "bert":
        from dynemo.tokenizers.gguf.wordpiece import WordPiece

        return WordPiece(vocabulary), Rules(_spaced_bytes, always_adds_bos=True, adds_sep=True)
    if vocabulary.tokenizer_model == "rwkv":
        from dynemo.tokenizers.gguf.others import Rwkv, unescape

        return Rwkv(vocabulary), Rules(unescape)
    if vocabulary.tokenizer_model in ("plamo2", "plamo3"):
        from dynemo.tokenizers.gguf.others import Plamo

        return Plamo(vocabulary, cuts_first=vocabulary.tokenizer_model == "plamo3"), Rules(
            _plain_bytes
        )
    return _load_bpe(vocabulary, metadata)


def _load_bpe(vocabulary: Vocabulary, metadata: Mapping[str, object]) -> tuple[Encoder, Rules]:
    bpe, pre = load_bpe(vocabulary, metadata)
    spell = _spaced_bytes if pre.escapes_spaces else _spelled_bytes
    rules = Rules(
        spell,
        adds_bos=pre.adds_bos,
        always_adds_bos=pre.always_adds_bos,
        escapes_spaces=pre.escapes_spaces,
    )
    if vocabulary.tokenizer_model == "hybriddna":
        from dynemo.tokenizers.gguf.others import HybridDna

        return HybridDna(vocabulary, bpe), rules
    if vocabulary.tokenizer_model == "whitespace":
        from dynemo.tokenizers.gguf.others import WhitespaceWords

        return WhitespaceWords(bpe, metadata), rules
    return bpe, rules


def _check_added(tokenizer: LlamaTokenizer) -> None:
    special = tokenizer.special
    for added, role, id_ in (
        (tokenizer.adds_bos, "bos", special.bos),
        (tokenizer.adds_eos, "eos", special.eos),
    ):
        if added and id_ is None:
            raise ModelError(
                f"The GGUF says to add a {role.upper()} token, but does not name one "
                f"(tokenizer.ggml.{role}_token_id). Download it again."
            )
