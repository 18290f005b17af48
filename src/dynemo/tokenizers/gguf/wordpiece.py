"""WordPiece, the tokenizer of BERT and of the embedding models after it.

The code follows `llm_tokenizer_wpm_session` in llama.cpp's `llama-vocab.cpp`. It splits a text into
words without case and accents, and a word into the longest tokens from its start. A word that the
vocabulary cannot spell whole becomes one unknown token.
"""

import unicodedata
from collections.abc import Iterator

from dynemo.tokenizers.gguf.unicode import SPACE, category
from dynemo.tokenizers.gguf.vocab import Vocabulary

_WORD_START = "▁"
_SPACES = "\t\n\v\f\r "  # Python counts four more, which are control characters here
#: Ideographs. Each one is a word.
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class WordPiece:
    def __init__(self, vocabulary: Vocabulary) -> None:
        self._ids = vocabulary.ids
        self._longest = max(map(len, vocabulary.tokens), default=0)
        unknown = vocabulary.special.unk
        self._unknown = [] if unknown is None else [unknown]

    def encode(self, text: str) -> list[int]:
        return [token_id for word in _words(text) for token_id in self._pieces(_WORD_START + word)]

    def _pieces(self, word: str) -> list[int]:
        ids: list[int] = []
        at = 0
        while at < len(word):
            for end in range(min(len(word), at + self._longest), at, -1):
                token_id = self._ids.get(word[at:end])
                if token_id is not None:
                    ids.append(token_id)
                    at = end
                    break
            else:
                return self._unknown
        return ids


def _words(text: str) -> Iterator[str]:
    word: list[str] = []
    for char in text:
        char = unicodedata.normalize("NFD", char)[0]
        code = ord(char)
        if char in _SPACES if code < 0x80 else category(code) == SPACE:
            if word:
                yield "".join(word)
                word = []
        elif _is_dropped(char, code):
            continue
        elif _stands_alone(char, code):
            if word:
                yield "".join(word)
                word = []
            yield char.lower()[0]
        else:
            word.append(char.lower()[0])
    if word:
        yield "".join(word)


def _is_dropped(char: str, code: int) -> bool:
    """Whether the character is a control character or an accent."""
    if code in (0, 0xFFFD) or unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co"):
        return True
    return code >= 0x80 and category(code) == "M"


def _stands_alone(char: str, code: int) -> bool:
    if code < 0x80:
        return unicodedata.category(char)[0] in "PS" and code != 0x7F
    return category(code) == "P" or any(first <= code <= last for first, last in _IDEOGRAPHS)
