"""Finds special tokens in a text, as `tokenizer_st_partition` in llama.cpp's `llama-vocab.cpp`.

It searches the whole text for the longest token first, and then the rest for shorter tokens. So a
short token that overlaps the start of a longer one loses, unlike in a left-to-right search.
"""

import re
from collections import defaultdict

from dynemo.tokenizers.base import WholeTexts
from dynemo.tokenizers.gguf.vocab import CONTROL, LSTRIP, RSTRIP, UNKNOWN, USER_DEFINED, Vocabulary

# The characters of isspace() in the C locale.
_SPACE = " \t\n\v\f\r"
#: Up to this number of different tokens in a text, one cut for each is fastest.
_FEW_FOUND = 16


class SpecialTokens:
    """The special tokens of one vocabulary. Immutable, so several threads may use it at once."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        tokens, attributes = vocabulary.tokens, vocabulary.attributes
        special = CONTROL | USER_DEFINED | UNKNOWN
        ids = [i for i, attribute in enumerate(attributes) if attribute & special]
        # Sorted by length in bytes, then by id.
        ids.sort(key=lambda i: -len(tokens[i].encode("utf-8", "surrogateescape")))
        self._attributes = {tokens[i]: attributes[i] for i in ids}
        self._ids = vocabulary.ids
        self._all = _Finder([tokens[i] for i in ids])
        self._always = _Finder([tokens[i] for i in ids if not attributes[i] & (CONTROL | UNKNOWN)])

    def texts(self) -> WholeTexts:
        control = frozenset(t for t, a in self._attributes.items() if a & (CONTROL | UNKNOWN))
        return WholeTexts(control, frozenset(self._attributes) - control)

    def split(self, text: str, parse_special: bool) -> list[str | int]:
        """Returns the special tokens' ids and the non-empty texts between them, in order.

        Without `parse_special` it finds only user-defined tokens: these are never plain text.
        """
        if not text:
            return []
        finder = self._all if parse_special else self._always
        specials = finder.candidates(text)
        if len(specials) > _FEW_FOUND:
            return self._split_at_many(text, finder.occurrences(text))
        parts: list[str | int] = [text]
        for special in specials:
            parts = [
                piece
                for part in parts
                for piece in ([part] if isinstance(part, int) else self._cut(part, special))
            ]
        return parts

    def _split_at_many(self, text: str, found: dict[str, list[int]]) -> list[str | int]:
        """Does the same in one pass: cutting the text for each token takes quadratic time."""
        taken = bytearray(len(text))
        starts: dict[int, str] = {}
        for special, places in found.items():
            size = len(special)
            accepted = []
            for start in places:
                if taken.find(1, start, start + size) < 0:
                    taken[start : start + size] = b"\1" * size
                    accepted.append(start)
            starts.update(dict.fromkeys(accepted, special))
            self._strip(text, taken, special, accepted)
        parts: list[str | int] = []
        at = 0
        for start in sorted(starts):
            parts += _untaken(text, taken, at, start)
            parts.append(self._ids[starts[start]])
            at = start + len(starts[start])
        return [*parts, *_untaken(text, taken, at, len(text))]

    def _strip(self, text: str, taken: bytearray, special: str, starts: list[int]) -> None:
        """Takes the white space that a token absorbs on either side."""
        attribute = self._attributes[special]
        for start in starts if attribute & RSTRIP else ():
            at = start + len(special)
            while at < len(text) and not taken[at] and text[at] in _SPACE:
                taken[at] = 1
                at += 1
        for start in starts if attribute & LSTRIP else ():
            at = start - 1
            while at >= 0 and not taken[at] and text[at] in _SPACE:
                taken[at] = 1
                at -= 1

    def _cut(self, text: str, special: str) -> list[str | int]:
        attribute = self._attributes[special]
        parts: list[str | int] = []
        pieces = text.split(special)
        for number, piece in enumerate(pieces):
            if number and attribute & RSTRIP:
                piece = piece.lstrip(_SPACE)
            if number:
                parts.append(self._ids[special])
            if attribute & LSTRIP and number < len(pieces) - 1:
                piece = piece.rstrip(_SPACE)
            if piece:
                parts.append(piece)
        return parts


def _untaken(text: str, taken: bytearray, start: int, end: int) -> list[str]:
    """Returns the text between two tokens, if any is left. What they absorbed is at its ends."""
    first = taken.find(0, start, end)
    return [text[first : taken.rfind(0, start, end) + 1]] if first >= 0 else []


class _Finder:
    """Finds which of many tokens a text holds, without searching the text for each of them."""

    #: Up to this number of tokens, one search per token is fastest.
    FEW = 48

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._order = {token: number for number, token in enumerate(tokens)}
        lengths: dict[str, set[int]] = defaultdict(set)
        for token in tokens:
            lengths[token[0]].add(len(token))
        self._lengths = {first: sorted(found) for first, found in lengths.items()}
        firsts = "".join(map(re.escape, self._lengths))
        self._starts = re.compile(f"[{firsts}]") if firsts else None

    def candidates(self, text: str) -> list[str]:
        """Returns every token that occurs in the text, in the given order."""
        if len(self._tokens) <= self.FEW:
            return [token for token in self._tokens if token in text]
        return list(self.occurrences(text))

    def occurrences(self, text: str) -> dict[str, list[int]]:
        """Returns the places of every token that occurs in the text; the tokens in order."""
        if self._starts is None:
            return {}
        found: dict[str, list[int]] = defaultdict(list)
        for start in self._starts.finditer(text):
            at = start.start()
            for length in self._lengths[text[at]]:
                token = text[at : at + length]
                if token in self._order:
                    found[token].append(at)
        return {token: found[token] for token in sorted(found, key=self._order.__getitem__)}
