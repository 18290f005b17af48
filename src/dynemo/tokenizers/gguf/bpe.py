"""BPE over a GGUF's vocabulary: `llm_tokenizer_bpe_session` in llama.cpp's `llama-vocab.cpp`."""

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import count

from dynemo.errors import ModelError
from dynemo.spelling import quoted
from dynemo.tokenizers.gguf.merge import WordCache, merge
from dynemo.tokenizers.gguf.pretokenize import PRE_TOKENIZERS, PreTokenizer
from dynemo.tokenizers.gguf.split import splitter
from dynemo.tokenizers.gguf.vocab import Vocabulary

#: U+2581 stands for a space in vocabularies that are not byte-level.
SPACE = "▁"


def byte_alphabet() -> str:
    """Returns GPT-2's 256 characters, one per byte.

    Printable Latin-1 stands for itself; the other bytes move past U+0100.
    """
    stays = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = count(0x100)
    return "".join(chr(byte if byte in stays else next(moved)) for byte in range(256))


BYTE_ALPHABET = byte_alphabet()


class Bpe:
    """Turns text without special tokens into ids. Several threads may use it at once."""

    def __init__(
        self, vocabulary: Vocabulary, merges: list[str], pre_tokenizer: PreTokenizer
    ) -> None:
        self._vocabulary = vocabulary
        self._pre = pre_tokenizer
        # Of two equal merges the first one counts. A merge is looked up by its whole line, because
        # its halves never hold a space.
        self._ranks: dict[str, float] = dict(
            zip(reversed(merges), range(len(merges) - 1, -1, -1), strict=True)
        )
        self._splitter = splitter(pre_tokenizer.patterns)
        self._cache = WordCache()

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        cached = self._cache.get
        for word in self._words(text):
            found = cached(word)
            ids += self._encode_word(word) if found is None else found
        return ids

    def _words(self, text: str) -> list[str]:
        words = self._splitter.split(text)
        if self._pre.splits_at_spaces:
            words = [part for word in words for part in _at_spaces(word)]
        if self._pre.is_byte_level:
            return words
        return [part for word in words for part in self._independent(word)]

    def _encode_word(self, word: str) -> list[int]:
        tokens = self._vocabulary.ids
        spelled = word
        if self._pre.is_byte_level:
            spelled = word.encode().decode("latin-1").translate(BYTE_ALPHABET)
        is_whole = self._pre.ignores_merges or (
            self._pre.keeps_newline_runs and not word.strip("\n")
        )
        if is_whole and spelled in tokens:
            ids = [tokens[spelled]]
        else:
            ids = []
            for part in merge(list(spelled), self._ranks, " "):
                found = tokens.get(part)
                ids += self._bytes_of(part) if found is None else (found,)
        self._cache.keep(word, ids)
        return ids

    def _bytes_of(self, part: str) -> list[int]:
        """Returns ids for a part without a token.

        As in llama.cpp, bytes without a token are dropped.
        """
        tokens = self._vocabulary.ids
        if self._pre.is_byte_level:
            # llama.cpp looks up the UTF-8 bytes, so it only finds ASCII characters.
            spellings = [char for char in part if char.isascii()]
        else:
            spellings = [f"<0x{byte:02X}>" for byte in part.encode()]
        return [tokens[spelling] for spelling in spellings if spelling in tokens]

    def _independent(self, word: str) -> list[str]:
        """Splits a word where no merge can join. Short parts merge faster and can be cached."""
        if not word.strip("\n"):
            return [word]
        return list(filter(None, self._boundary.split(word)))

    @cached_property
    def _boundary(self) -> re.Pattern[str]:
        return boundary_before_spaces(line.replace(" ", "") for line in self._ranks)


def boundary_before_spaces(tokens: Iterable[str]) -> re.Pattern[str]:
    """Returns a regex that matches before a U+2581 that no token joins to the character before it.

    Merging the text between two matches on its own gives the same result.
    """
    before = set(re.findall(rf"([^\0]){SPACE}", "\0".join(tokens)))
    joinable = "".join(map(re.escape, sorted(before)))
    return re.compile(rf"(?<![{SPACE}{joinable}])(?={SPACE})")


def _at_spaces(word: str) -> list[str]:
    """Splits a word as mmBERT does: every part starts with a space, including the first."""
    if not word.strip("\n"):
        return [word]
    if not word.startswith(SPACE):
        word = SPACE + word
    return re.findall(rf"{SPACE}[^{SPACE}]*", word)


def load_bpe(vocabulary: Vocabulary, metadata: Mapping[str, object]) -> tuple[Bpe, PreTokenizer]:
    """Loads the BPE encoder and its pre-tokenizer.

    Raises ModelError for an unknown pre-tokenizer, or if the merges are missing.
    """
    pre = metadata.get("tokenizer.ggml.pre") or "default"
    if vocabulary.tokenizer_model == "gemma4":
        pre = "gemma4"
    if pre not in PRE_TOKENIZERS:
        raise ModelError(
            f"The GGUF's tokenizer needs the pre-tokenizer {quoted(str(pre))}, which dynemo-run "
            "does not know. Update dynemo-run, or convert the model with a released llama.cpp."
        )
    pre_tokenizer = PRE_TOKENIZERS[str(pre)]
    merges = metadata.get("tokenizer.ggml.merges")
    if merges is None and pre == "kimi-k2":
        merges = []
    if not isinstance(merges, list) or (merges and not isinstance(merges[0], str)):
        raise ModelError(
            "The GGUF's BPE tokenizer has no merges (tokenizer.ggml.merges). Download a complete "
            "GGUF."
        )
    return Bpe(vocabulary, merges, pre_tokenizer), pre_tokenizer
