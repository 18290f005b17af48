"""BPE over a GGUF's vocabulary: `llm_tokenizer_bpe_session` in llama.cpp's `llama-vocab.cpp`."""

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import count

from dynemo.errors import ModelError
from dynemo.tokenizers.gguf.merge import WordCache, merge
from dynemo.tokenizers.gguf.pretokenize import PRE_TOKENIZERS, PreTokenizer
from dynemo.tokenizers.gguf.split import splitter
from dynemo.tokenizers.gguf.vocab import Vocabulary

#: U+2581 stands for a space in vocabularies that are not byte-level.
SPACE = "▁"


def byte_alphabet() -> str:
    """GPT-2's 256 characters, one for each byte: printable Latin-1 stays, the rest moves up."""
    stays = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = count(0x100)
    return "".join(chr(byte if byte in stays else next(moved)) for byte in range(256))


BYTE_ALPHABET = byte_alphabet()


class Bpe:
    """Text to ids, special tokens aside. May be used from several threads at once."""

    def __init__(
        self, vocabulary: Vocabulary, merges: list[str], pre_tokenizer: PreTokenizer
    ) -> None:
        self._vocabulary = vocabulary
        self._pre = pre_tokenizer
        # Of two equal merges the first counts. A merge is looked up by its line as it stands:
        # halves hold no space.
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
        """Ids for a part that is no token; bytes without a token are dropped, as llama.cpp does."""
        tokens = self._vocabulary.ids
        if self._pre.is_byte_level:
            # llama.cpp looks the UTF-8 bytes up, so that only ASCII can be found.
            spellings = [char for char in part if char.isascii()]
        else:
            spellings = [f"<0x{byte:02X}>" for byte in part.encode()]
        return [tokens[spelling] for spelling in spellings if spelling in tokens]

    def _independent(self, word: str) -> list[str]:
        """The word in parts that no merge can join: short parts are quick, and can be cached."""
        if not word.strip("\n"):
            return [word]
        return list(filter(None, self._boundary.split(word)))

    @cached_property
    def _boundary(self) -> re.Pattern[str]:
        return boundary_before_spaces(line.replace(" ", "") for line in self._ranks)


def boundary_before_spaces(tokens: Iterable[str]) -> re.Pattern[str]:
    """Matches before a U+2581 that no token joins to what stands before it.

    What lies between two such places is merged as if it stood alone, so it may be done alone.
    """
    before = set(re.findall(rf"([^\0]){SPACE}", "\0".join(tokens)))
    joinable = "".join(map(re.escape, sorted(before)))
    return re.compile(rf"(?<![{SPACE}{joinable}])(?={SPACE})")


def _at_spaces(word: str) -> list[str]:
    """mmBERT's words: each starts with a space, the first one, too."""
    if not word.strip("\n"):
        return [word]
    if not word.startswith(SPACE):
        word = SPACE + word
    return re.findall(rf"{SPACE}[^{SPACE}]*", word)


def load_bpe(vocabulary: Vocabulary, metadata: Mapping[str, object]) -> tuple[Bpe, PreTokenizer]:
    """Raises `ModelError` for an unknown pre-tokenizer, and where merges are missing."""
    pre = metadata.get("tokenizer.ggml.pre") or "default"
    if vocabulary.kind == "gemma4":
        pre = "gemma4"
    if pre not in PRE_TOKENIZERS:
        raise ModelError(
            f"the GGUF's tokenizer has the pre-tokenizer {pre!r}, which dynemo-run does not know: "
            "update dynemo-run, or convert the model with a released llama.cpp"
        )
    pre_tokenizer = PRE_TOKENIZERS[str(pre)]
    merges = metadata.get("tokenizer.ggml.merges")
    if merges is None and pre == "kimi-k2":
        merges = []
    if not isinstance(merges, list) or (merges and not isinstance(merges[0], str)):
        raise ModelError(
            "the GGUF's BPE tokenizer has no merges (tokenizer.ggml.merges): "
            "download a complete GGUF"
        )
    return Bpe(vocabulary, merges, pre_tokenizer), pre_tokenizer
