"""The tokenizer that a GGUF carries, giving the ids that llama.cpp gives.

`load_tokenizer` picks one by `tokenizer.ggml.model`. After `llama_vocab::impl::tokenize` and
`token_to_piece` in llama.cpp's `llama-vocab.cpp`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from dynemo.errors import ModelError, RequestError
from dynemo.text.detokenize import ByteDetokenizer
from dynemo.text.llama_bpe import BYTE_ALPHABET, SPACE, load_bpe
from dynemo.text.llama_special import SpecialTokens
from dynemo.text.llama_spm import Spm
from dynemo.text.llama_vocab import (
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
from dynemo.text.tokenizer import Detokenizer

_SURROGATE = re.compile("[\ud800-\udfff]")
_BYTE_OF = {char: byte for byte, char in enumerate(BYTE_ALPHABET)}


class _Encoder(Protocol):
    def encode(self, text: str) -> list[int]: ...


class LlamaTokenizer:
    """A GGUF's tokenizer. Implements `dynemo.text.tokenizer.Tokenizer`.

    `special` has the ids with a role, among them all that end a generation (`special.eog`).
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        encoder: _Encoder,
        *,
        adds_bos: bool,
        adds_eos: bool,
        escapes_spaces: bool,
        prefixes_space: bool,
    ) -> None:
        self.special: SpecialIds = vocabulary.special
        self.adds_bos = adds_bos
        self.adds_eos = adds_eos
        self._vocabulary = vocabulary
        self._encoder = encoder
        self._escapes_spaces = escapes_spaces
        self._prefixes_space = prefixes_space
        self._special_tokens = SpecialTokens(vocabulary)
        self._pieces = _Pieces(vocabulary, escapes_spaces)

    @property
    def vocab_size(self) -> int:
        return len(self._vocabulary.tokens)

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Ids as llama.cpp's `/tokenize` gives them.

        Raises `RequestError` for a lone surrogate: it has no UTF-8, so no model can be given it.
        """
        if not text.isascii() and (found := _SURROGATE.search(text)):
            raise RequestError(
                f"the text holds the lone surrogate U+{ord(found[0]):04X}, which is no character"
            )
        ids: list[int] = []
        if add_special and self.adds_bos and self.special.bos is not None:
            ids.append(self.special.bos)
        starts_word = self._prefixes_space
        for part in self._special_tokens.split(text, parse_special):
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
        if add_special and self.adds_eos and self.special.eos is not None:
            ids.append(self.special.eos)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids; a leading space that the vocabulary adds is kept, as in a stream."""
        return b"".join(map(self._pieces.__getitem__, ids)).decode("utf-8", "replace")

    def detokenizer(self) -> Detokenizer:
        return ByteDetokenizer(self._pieces.__getitem__)

    def token_id(self, text: str) -> int | None:
        return self._vocabulary.ids.get(text)

    def token_text(self, token_id: int) -> str | None:
        tokens = self._vocabulary.tokens
        return tokens[token_id] if 0 <= token_id < len(tokens) else None

    def token_bytes(self, token_id: int) -> bytes:
        """The token's bytes in a text, empty for a control token."""
        return self._pieces[token_id]


class _Pieces(dict[int, bytes]):
    """Id -> the bytes that it stands for; filled as ids are met."""

    def __init__(self, vocabulary: Vocabulary, escapes_spaces: bool) -> None:
        super().__init__()
        self._vocabulary = vocabulary
        self._escapes_spaces = escapes_spaces

    def __missing__(self, token_id: int) -> bytes:
        tokens = self._vocabulary.tokens
        if not 0 <= token_id < len(tokens):
            raise RequestError(f"the token id {token_id} is not in range({len(tokens)})")
        piece = self._piece(tokens[token_id], self._vocabulary.attributes[token_id])
        self[token_id] = piece
        return piece

    def _piece(self, text: str, attribute: int) -> bytes:
        if attribute & (CONTROL | UNKNOWN):
            return b""
        if attribute & USER_DEFINED:
            return text.encode("utf-8", "surrogateescape")
        if attribute & NORMAL:
            if self._escapes_spaces:
                return text.replace(SPACE, " ").encode("utf-8", "surrogateescape")
            return _spelled_bytes(text)
        if attribute & BYTE:
            return bytes([int(text[3:5], 16)])
        return b""


def _spelled_bytes(text: str) -> bytes:
    """The bytes that a token in GPT-2's alphabet spells (`llama_decode_text`)."""
    try:
        return bytes([_BYTE_OF[char] for char in text])
    except KeyError:
        pass
    piece = b""
    for char in text:
        if char in _BYTE_OF:
            piece += bytes([_BYTE_OF[char]])
        else:
            # llama.cpp shows such a token so; it does not occur in vocabularies made with care.
            hexadecimal = char.encode("utf-8", "surrogateescape").hex()
            piece += f"[UNK_BYTE_0x{hexadecimal}{text}]".encode("utf-8", "surrogateescape")
    return piece


#: `tokenizer.ggml.model` -> its name among people. The others are refused by name.
SUPPORTED = {"llama": "SPM", "gpt2": "BPE", "gemma4": "BPE"}
_KNOWN = {
    "bert": "WordPiece, of embedding models",
    "t5": "Unigram, of T5 models",
    "rwkv": "of RWKV models",
    "plamo2": "of PLaMo-2 models",
    "plamo3": "of PLaMo-3 models",
    "hybriddna": "of DNA models",
    "whitespace": "of embedding models",
    "no_vocab": "a model without a vocabulary",
    "none": "a model without a vocabulary",
}


def load_tokenizer(metadata: Mapping[str, object]) -> LlamaTokenizer:
    """The tokenizer that a GGUF's metadata describes.

    Raises `ModelError` where the metadata holds none, or one of a kind that is not supported: the
    sentence names the kind.
    """
    kind = metadata.get("tokenizer.ggml.model")
    if isinstance(kind, str) and kind not in SUPPORTED:
        what = f" ({_KNOWN[kind]})" if kind in _KNOWN else ""
        kinds = ", ".join(f"{name} ({people})" for name, people in SUPPORTED.items())
        raise ModelError(
            f"the GGUF's tokenizer is of the kind {kind!r}{what}, which dynemo-run does not "
            f"support; it supports {kinds}"
        )
    vocabulary = load_vocabulary(metadata)
    encoder: _Encoder
    if vocabulary.kind == "llama":
        encoder, adds_bos, escapes_spaces, prefixes_space = Spm(vocabulary), True, True, True
    else:
        encoder, pre = load_bpe(vocabulary, metadata)
        adds_bos, escapes_spaces, prefixes_space = pre.adds_bos, pre.escapes_spaces, False
    tokenizer = LlamaTokenizer(
        vocabulary,
        encoder,
        adds_bos=flag(metadata, "add_bos_token", adds_bos),
        adds_eos=flag(metadata, "add_eos_token", False),
        escapes_spaces=escapes_spaces,
        prefixes_space=prefixes_space and flag(metadata, "add_space_prefix", True),
    )
    _check_added(tokenizer)
    return tokenizer


def _check_added(tokenizer: LlamaTokenizer) -> None:
    special = tokenizer.special
    for added, role, id_ in (
        (tokenizer.adds_bos, "bos", special.bos),
        (tokenizer.adds_eos, "eos", special.eos),
    ):
        if added and id_ is None:
            raise ModelError(
                f"the GGUF says to add a {role.upper()} token and names none "
                f"(tokenizer.ggml.{role}_token_id): download it again"
            )
