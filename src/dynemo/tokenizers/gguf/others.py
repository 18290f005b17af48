"""The less common tokenizers of llama.cpp: RWKV, PLaMo-2 and -3, DNA and white-space words.

They follow `llm_tokenizer_rwkv_session`, `llm_tokenizer_plamo2`, `llm_tokenizer_hybriddna_session`
and `llm_tokenizer_whitespace_session` in `llama-vocab.cpp`.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from math import copysign, floor, inf, isfinite

from dynemo.errors import ModelError
from dynemo.tokenizers.gguf.bpe import Bpe
from dynemo.tokenizers.gguf.match import Matcher
from dynemo.tokenizers.gguf.unicode import SPACE, category
from dynemo.tokenizers.gguf.vocab import BYTE, DNA_MARK, Vocabulary, flag


class Rwkv:
    """Takes the longest token at each position, over bytes."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._unknown = vocabulary.special.unk
        self._matcher: Matcher[bytes] = Matcher(
            (unescape(text), i) for i, text in enumerate(vocabulary.tokens)
        )

    def encode(self, text: str) -> list[int]:
        data = text.encode()
        ids: list[int] = []
        at = 0
        while at < len(data):
            token = self._matcher.longest(data, at)
            if token is not None:
                ids.append(self._matcher.ids[token])
            elif self._unknown is not None:
                ids.append(self._unknown)
            at += len(token or b"?")
        return ids


_ESCAPES = {"t": b"\t", "n": b"\n", "r": b"\r"}


def unescape(text: str) -> bytes:
    r"""Returns the bytes that a token of an RWKV vocabulary spells: `\n`, `\x1b`, `\\`, ..."""

    def replaced(escape: re.Match[str]) -> str:
        if escape[1]:
            return bytes.fromhex(escape[1]).decode("latin-1")
        return _ESCAPES.get(escape[2], b"").decode() or escape[2]

    if "\\" not in text:
        return text.encode("utf-8", "surrogateescape")
    spelled = text.encode("utf-8", "surrogateescape").decode("latin-1")
    return re.sub(r"\\(?:x([0-9a-f]{2})|(.))", replaced, spelled, flags=re.DOTALL).encode("latin-1")


# The cost of a character without a token. One unit is a ten-thousandth of a score.
_UNKNOWN_COST = 10_000_000
_BYTE_ORDER_MARK = "\ufeff"
_BOUNDARY = "\uee00"
# llama.cpp does not count U+001C to U+001F as white space, but they still end a token's name.
_PLAMO_SPECIAL = re.compile(
    "<\\|plamo:[^|\\s\x1c-\x1f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]{0,64}\\|>",
    re.ASCII,
)
_PLAMO_RUN = re.compile(r"([^\n])\1{3,}| {2,}", re.DOTALL)


class Plamo:
    """Cuts a text so that the sum of scores is highest. Characters without a token become bytes.

    PLaMo-3 first cuts at its special tokens, at runs of one character and at U+EE00.
    """

    def __init__(self, vocabulary: Vocabulary, *, cuts_first: bool) -> None:
        tokens, attributes = vocabulary.tokens, vocabulary.attributes
        self._cuts_first = cuts_first
        self._matcher: Matcher[str] = Matcher(
            (text, i)
            for i, (text, score) in enumerate(zip(tokens, vocabulary.scores, strict=False))
            if not attributes[i] & BYTE and isfinite(score)
        )
        self._costs = [_cost(score) for score in vocabulary.scores]
        self._bytes = [vocabulary.ids.get(f"<0x{byte:02X}>", -1) for byte in range(256)]
        if -1 in self._bytes or not self._costs:
            raise ModelError(
                "The GGUF's PLaMo tokenizer lacks scores, or tokens for some bytes. Download it "
                "again."
            )

    def encode(self, text: str) -> list[int]:
        if not self._cuts_first:
            return self._encode_part(text.removeprefix(_BYTE_ORDER_MARK))
        return [token for part in _plamo_parts(text) for token in self._encode_part(part)]

    def _encode_part(self, text: str) -> list[int]:
        ids, costs, lengths_at = self._matcher.ids, self._costs, self._matcher.lengths_at
        totals = [0] * (len(text) + 1)
        steps: list[tuple[int, int | None]] = [(1, None)] * len(text)
        for at in range(len(text) - 1, -1, -1):
            least: float = inf
            for length in lengths_at(text, at):
                end = at + length
                found = ids.get(text[at:end]) if end <= len(text) else None
                if found is not None and (cost := totals[end] + costs[found]) < least:
                    least, totals[at], steps[at] = cost, cost, (length, found)
            if (cost := totals[at + 1] + _UNKNOWN_COST) < least:
                totals[at], steps[at] = cost, (1, None)
        out: list[int] = []
        at = 0
        while at < len(text):
            length, token = steps[at]
            out += [self._bytes[b] for b in text[at].encode()] if token is None else (token,)
            at += length
        return out


def _cost(score: float) -> int:
    if not isfinite(score):
        return 0
    # C rounds halves away from zero.
    value = -score * 1e4
    return int(copysign(floor(abs(value) + 0.5), value))


def _plamo_parts(text: str) -> Iterator[str]:
    cuts = {0, len(text)}
    for special in _PLAMO_SPECIAL.finditer(text):
        cuts |= {special.start(), special.end()}
    fenced = sorted(cuts)
    for start, end in pairwise(fenced):
        for run in _PLAMO_RUN.finditer(text, start, end):
            cuts |= {run.start(), run.end()}
    ordered = sorted(cuts)
    for start, end in pairwise(ordered):
        yield from filter(None, text[start:end].split(_BOUNDARY))


_DNA_LENGTH = 6
_UPPER = {byte: byte - 32 for byte in range(ord("a"), ord("z") + 1)}


class HybridDna:
    """BPE, except for six bases per token between `<dna>` and `</dna>`."""

    def __init__(self, vocabulary: Vocabulary, bpe: Bpe) -> None:
        self._tokens = vocabulary.ids
        self._bpe = bpe
        self._has_dna = all(text in self._tokens for text in ("<dna>", "</dna>", "<oov>"))

    def encode(self, text: str) -> list[int]:
        if not self._has_dna:
            return self._bpe.encode(text)
        ids: list[int] = []
        while text:
            plain, opened, text = text.partition("<dna>")
            ids += self._bpe.encode(plain)
            if not opened:
                break
            bases, closed, text = text.partition("</dna>")
            ids += [self._tokens["<dna>"], *self._bases(bases)]
            if closed:
                ids.append(self._tokens["</dna>"])
        return ids

    def _bases(self, bases: str) -> Iterator[int]:
        # llama.cpp counts bytes. Characters outside ASCII are unknown either way.
        data = bases.translate(_UPPER).encode()
        for at in range(0, len(data), _DNA_LENGTH):
            piece = data[at : at + _DNA_LENGTH].ljust(_DNA_LENGTH, b"A")
            spelled = piece.decode("utf-8", "replace") + DNA_MARK
            yield self._tokens.get(spelled, self._tokens["<oov>"])


class WhitespaceWords:
    """BPE over each word between white space. The white space is dropped."""

    def __init__(self, bpe: Bpe, metadata: Mapping[str, object]) -> None:
        self._bpe = bpe
        keeps_case = metadata.get("tokenizer.ggml.pre") == "whitespace"
        self._lowers = flag(metadata, "normalizer.lowercase", not keeps_case)

    def encode(self, text: str) -> list[int]:
        spaced = "".join(" " if _is_space(char) else char for char in text)
        ids: list[int] = []
        for word in spaced.split(" "):
            ids += self._bpe.encode(_lowered(word) if self._lowers else word)
        return ids


def _is_space(char: str) -> bool:
    return char in " \t\n\v\f\r" or (char >= "\x80" and category(ord(char)) == SPACE)


def _lowered(word: str) -> str:
    # Unicode's simple mapping is the first character of Python's full mapping.
    return "".join(char.lower()[0] for char in word)
