"""SentencePiece's BPE over a GGUF's vocabulary: `llm_tokenizer_spm_session` in `llama-vocab.cpp`.

Pairs join by the score of the token that they make. A character without a token becomes the tokens
of its bytes (`<0xE2>`).
"""

import re
from functools import cached_property

from dynemo.errors import RequestError
from dynemo.spelling import quoted
from dynemo.tokenizers.gguf.bpe import boundary_before_spaces
from dynemo.tokenizers.gguf.merge import WordCache, merge
from dynemo.tokenizers.gguf.vocab import Vocabulary


class Spm:
    """Turns text without special tokens into ids. Several threads may use it at once."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        scores = vocabulary.scores or [0.0] * len(vocabulary.tokens)
        self._costs = {text: -score for text, score in zip(vocabulary.tokens, scores, strict=False)}
        self._cache = WordCache()

    def encode(self, text: str) -> list[int]:
        """Returns the ids of `text`, in which U+2581 stands for spaces."""
        ids: list[int] = []
        cached = self._cache.get
        for word in filter(None, self._boundary.split(text)):
            found = cached(word)
            ids += self._encode_word(word) if found is None else found
        return ids

    def _encode_word(self, word: str) -> list[int]:
        tokens = self._vocabulary.ids
        ids: list[int] = []
        for part in merge(list(word), self._costs, ""):
            found = tokens.get(part)
            ids += self._bytes_of(part) if found is None else (found,)
        self._cache.keep(word, ids)
        return ids

    def _bytes_of(self, part: str) -> list[int]:
        # llama.cpp fails if a byte has no token. The unknown token is what it would mean.
        tokens = self._vocabulary.ids
        ids = []
        for byte in part.encode():
            found = tokens.get(f"<0x{byte:02X}>")
            if found is None:
                found = self._vocabulary.special.unk
            if found is None:
                raise RequestError(f"The model's vocabulary has no token for {quoted(part)}.")
            ids.append(found)
        return ids

    @cached_property
    def _boundary(self) -> re.Pattern[str]:
        return boundary_before_spaces(self._vocabulary.tokens)
