"""Unigram over a GGUF's vocabulary (T5): `llm_tokenizer_ugm_session` in `llama-vocab.cpp`.

The text is normalized by SentencePiece's compiled map, and then cut so that the sum of the tokens'
scores is highest.
"""

import struct
from collections.abc import Mapping
from itertools import groupby
from math import inf

from dynemo.errors import ModelError
from dynemo.tokenizers.gguf.bpe import SPACE
from dynemo.tokenizers.gguf.match import Matcher
from dynemo.tokenizers.gguf.vocab import NORMAL, UNUSED, USER_DEFINED, Vocabulary, flag

#: How far an unknown character scores below the worst token.
UNKNOWN_PENALTY = 10.0


class Unigram:
    """Turns text without special tokens into ids. Several threads may use it at once."""

    def __init__(self, vocabulary: Vocabulary, metadata: Mapping[str, object]) -> None:
        tokens, attributes = vocabulary.tokens, vocabulary.attributes
        scores = vocabulary.scores or [0.0] * len(tokens)
        if vocabulary.special.unk is None:
            raise ModelError(
                "The GGUF's Unigram tokenizer does not name its unknown token "
                "(tokenizer.ggml.unknown_token_id). Download it again."
            )
        self._unknown = vocabulary.special.unk
        self._matcher: Matcher[str] = Matcher(
            (text, i)
            for i, text in enumerate(tokens)
            if attributes[i] & (NORMAL | USER_DEFINED | UNUSED)
        )
        self._scores = [
            0.0 if attribute & USER_DEFINED else score
            for attribute, score in zip(attributes, scores, strict=False)
        ]
        normal = [scores[i] for i, attribute in enumerate(attributes) if attribute & NORMAL]
        self._unknown_score = _single(min(normal, default=0.0) - UNKNOWN_PENALTY)
        self._normalizer = Normalizer(vocabulary, metadata)

    def encode(self, text: str) -> list[int]:
        text = self._normalizer.normalize(text)
        if not text:
            return []
        best = [(-inf, 0, self._unknown)] * (len(text) + 1)
        best[0] = (0.0, 0, self._unknown)
        ids, scores, lengths_at = self._matcher.ids, self._scores, self._matcher.lengths_at
        for at in range(len(text)):
            score_here = best[at][0]
            for length in lengths_at(text, at):
                end = at + length
                if end <= len(text) and (found := ids.get(text[at:end])) is not None:
                    score = score_here + scores[found]
                    # Of equal sums, the one with the longer last token comes first and stays.
                    if score > best[end][0]:
                        best[end] = (score, at, found)
            if text[at] not in ids:
                score = score_here + self._unknown_score
                if score > best[at + 1][0]:
                    best[at + 1] = (score, at, self._unknown)
        return self._trace(best)

    def _trace(self, best: list[tuple[float, int, int]]) -> list[int]:
        backwards = []
        at = len(best) - 1
        while at:
            _, at, token = best[at]
            backwards.append(token)
        # A run of unknown characters is one unknown token.
        out: list[int] = []
        for token, run in groupby(reversed(backwards)):
            out += [token] if token == self._unknown else list(run)
        return out


class Normalizer:
    """SentencePiece's normalization: a compiled map of prefixes, then the rules for spaces."""

    def __init__(self, vocabulary: Vocabulary, metadata: Mapping[str, object]) -> None:
        self._prefixes_space = flag(metadata, "add_space_prefix", False)
        self._merges_spaces = flag(metadata, "remove_extra_whitespaces", False)
        tokens, attributes = vocabulary.tokens, vocabulary.attributes
        # llama.cpp keeps any bytes that start like a user-defined token, whether or not the whole
        # token follows. So a character that shares only its first bytes with one is torn, and
        # becomes unknown.
        self._kept = {
            spelled[:length]
            for text, attribute in zip(tokens, attributes, strict=True)
            if attribute & USER_DEFINED
            for spelled in (text.encode("utf-8", "surrogateescape"),)
            for length in range(1, len(spelled) + 1)
        }
        self._nodes, self._replacements = _charsmap(metadata)

    def normalize(self, text: str) -> str:
        out: list[str] = []
        is_inside = has_space = False
        for char in self._mapped(text.encode()).decode("utf-8", "surrogateescape"):
            if char == " ":
                is_inside = False
                if not self._merges_spaces:
                    out.append(SPACE)
                continue
            if not is_inside:
                is_inside = True
                if self._merges_spaces or (self._prefixes_space and not has_space):
                    out.append(SPACE)
                    has_space = True
            out.append(char)
        return "".join(out)

    def _mapped(self, data: bytes) -> bytes:
        parts = []
        at = 0
        while at < len(data):
            length = 0
            while at + length < len(data) and data[at : at + length + 1] in self._kept:
                length += 1
            if length:
                part = data[at : at + length]
            else:
                part, length = self._replacement(data, at)
            parts.append(part)
            at += length
        return b"".join(parts)

    def _replacement(self, data: bytes, at: int) -> tuple[bytes, int]:
        """Returns the replacement of the longest prefix in the map, and the length of that prefix.

        If no prefix is in the map, it returns the character itself. The map is SentencePiece's
        XOR-compressed double array over UTF-8 bytes.
        """
        nodes = self._nodes
        found = _character(data, at)
        node = _base(nodes[0]) if nodes else 0
        for end in range(at, len(data) if nodes else at):
            byte = data[end]
            node ^= byte
            if byte == 0 or node >= len(nodes) or nodes[node] & 0x800000FF != byte:
                break
            is_leaf = nodes[node] >> 8 & 1
            node ^= _base(nodes[node])
            if is_leaf and node < len(nodes):
                found = (self._text_at(nodes[node] & 0x7FFFFFFF), end + 1 - at)
        return found

    def _text_at(self, offset: int) -> bytes:
        end = self._replacements.find(b"\0", offset)
        return self._replacements[offset : end if end >= 0 else None]


def _character(data: bytes, at: int) -> tuple[bytes, int]:
    first = data[at]
    length = 1 if first < 0x80 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4
    part = data[at : at + length]
    if first >= 0x80 and (
        first < 0xC0 or len(part) < length or any(byte & 0xC0 != 0x80 for byte in part[1:])
    ):
        return "\ufffd".encode(), 1
    return part, length


def _base(node: int) -> int:
    return (node >> 10) << ((node & 0x200) >> 6)


def _charsmap(metadata: Mapping[str, object]) -> tuple[tuple[int, ...], bytes]:
    values = metadata.get("tokenizer.ggml.precompiled_charsmap") or []
    if not isinstance(values, list):
        raise ModelError(
            "The GGUF's precompiled_charsmap is not a list of bytes. Download it again."
        )
    if not values:
        return (), b""
    data = bytes(value & 0xFF for value in values)
    size = int.from_bytes(data[:4], "little")
    if size % 4 or size + 4 >= len(data):
        raise ModelError("The GGUF's precompiled_charsmap is truncated. Download it again.")
    return struct.unpack_from(f"<{size // 4}I", data, 4), data[4 + size :]


def _single(value: float) -> float:
    """Returns the value rounded to a 32-bit float, which llama.cpp uses."""
    (single,) = struct.unpack("<f", struct.pack("<f", value))
    return float(single)
