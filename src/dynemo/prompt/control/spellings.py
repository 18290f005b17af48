"""Finds the texts of tokens, and the beginnings of such texts, in what a client sends."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import json

#: How many characters of a spelling a text must have before it is looked at closer.
_DEPTH = 4
_CUT_DEPTH = 3
_END = ""  #: the key of a tree's node at which a spelling ends
_ODD = re.compile(r"[^\t\n\r -~]")


class Spellings:
    """The texts of some tokens, each at least two characters long. Threads may share it.

    It ignores case, because a template may change it.
    """

    def __init__(
        self,
        texts: Iterable[str],
        cuts: Iterable[str],
        reasoning: Iterable[str],
        *,
        opens: Iterable[str],
        is_folded: bool,
    ) -> None:
        self._texts = frozenset(texts)
        self._reasoning = frozenset(mark.lower() for mark in reasoning)
        self._opens = frozenset(text.lower() for text in opens)
        self._longest = max(map(len, self._texts), default=0)
        self._tree = _tree(text.lower() for text in self._texts)
        #: The characters with which a text begins or ends, apart from letters and the like.
        self.edges = frozenset(
            edge for text in self._texts for edge in (_edge(text), _edge(text[::-1])) if edge
        )
        self._firsts = frozenset(text[0] for text in self._texts)
        ends = [text.lower() for text in (*cuts, *reasoning)]
        stop = f"(?=\\s*\\Z|{_pattern(_tree(ends), _CUT_DEPTH)})"
        # Only the first character is taken, so that the next spelling may begin in this one.
        choices = [
            f"{re.escape(first)}(?={_pattern(node, _DEPTH - 1, stop)})"
            for first, node in sorted(self._tree.items())
        ]
        self._starts = re.compile("|".join(choices) or "(?!)", re.IGNORECASE)
        self._ends = re.compile("|".join((r"\s*\Z", *map(re.escape, ends))), re.IGNORECASE)
        self._lookalikes = _lookalikes(self.edges) if is_folded and self.edges else None
        rests = [_pattern(_node(self._tree, begun), _DEPTH, stop) for begun in sorted(self._opens)]
        self._rests = re.compile(rf"\s*(?:{'|'.join(rests) or '(?!)'})", re.IGNORECASE)

    def may_hold(self, text: str) -> bool:
        """Whether `hits` can find something. It takes the time of one search."""
        if self._starts.search(text) or self._lookalikes is not None:
            return True
        return bool(self._opens) and self._rests.match(text) is not None

    def may_hold_any(self, value: object) -> bool:
        """Whether a text inside a long value can hold something."""
        if self._opens or self._lookalikes is not None:
            return True
        try:
            printed = json.encode(value)
        except (TypeError, ValueError, OverflowError):
            return True
        return any(first.isalpha() or first.encode() in printed for first in self._firsts)

    def hits(self, text: str, *, may_reason: bool) -> Iterator[int]:
        """Yields each place of a character that must be marked: where a spelling begins, or the
        beginning of one at whose end the template may cut the text. `may_reason` skips reasoning
        marks.
        """
        if self._lookalikes is not None and _ODD.search(text):
            yield from (found.start() for found in self._lookalikes.finditer(text))
            return
        after = -1
        if self._opens and (at := self._rest_of_spelling(text)) is not None:
            yield at
            after = at
        for found in self._starts.finditer(text):
            at = found.start()
            if at <= after:
                continue
            sizes, begun = self._walk(text[at : at + self._longest].lower())
            if sizes:
                if not may_reason or text[at : at + sizes[-1]].lower() not in self._reasoning:
                    yield at
            elif self._ends.match(text, at + begun):
                yield at

    def tokens_in(self, text: str) -> list[str]:
        """Returns the tokens that a tokenizer would find in a prompt, in order."""
        tokens, end = [], 0
        for found in self._starts.finditer(text):
            at = found.start()
            if at < end:
                continue
            sizes, _ = self._walk(text[at : at + self._longest].lower())
            for size in reversed(sizes):
                token = text[at : at + size]
                if token in self._texts:
                    tokens.append(token)
                    end = at + size
                    break
        return tokens

    def _walk(self, text: str) -> tuple[list[int], int]:
        """Returns the lengths of the spellings with which a text begins, and of the longest
        beginning of one."""
        sizes: list[int] = []
        node = self._tree
        for size, character in enumerate(text):
            if _END in node:
                sizes.append(size)
            if character not in node:
                return sizes, size
            node = node[character]
        if _END in node:
            sizes.append(len(text))
        return sizes, len(text)

    def _rest_of_spelling(self, text: str) -> int | None:
        """Returns the place of the text's first word, if it continues what a template began."""
        start = len(text) - len(text.lstrip()) if text[:1].isspace() else 0
        head = text[start : start + self._longest].lower()
        is_whole = len(text) <= start + len(head) or not text[start + len(head) :].strip()
        for begun in self._opens if head else ():
            both = (begun + head).rstrip() if is_whole else begun + head
            sizes, longest = self._walk(both)
            if (sizes and sizes[-1] > len(begun)) or (is_whole and longest == len(both)):
                return start
        return None


def _edge(text: str) -> str:
    return next((c for c in text if not (c.isalnum() or c.isspace() or c == "_")), "")


def _tree(texts: Iterable[str]) -> dict[str, Any]:
    """Returns the texts as a tree of their characters."""
    root: dict[str, Any] = {}
    for text in texts:
        node = root
        for character in text:
            node = node.setdefault(character, {})
        node[_END] = {}
    return root


def _node(tree: dict[str, Any], text: str) -> dict[str, Any]:
    for character in text:
        tree = tree[character]
    return tree


def _pattern(node: dict[str, Any], depth: int, stop: str = "") -> str:
    """Returns a pattern for a text that follows the tree, or stops, for `depth` characters."""
    if depth == 0 or _END in node:
        return ""
    choices = [
        re.escape(character) + _pattern(child, depth - 1, stop)
        for character, child in sorted(node.items())
    ]
    return f"(?:{'|'.join([*choices, stop] if stop else choices)})"


def _lookalikes(edges: Iterable[str]) -> re.Pattern[str]:
    """Finds the edges, and all characters that a Unicode normalization makes an edge of."""
    from unicodedata import normalize

    wanted = set(edges)
    found = {c for c in map(chr, range(0x80, 0x10000)) if wanted & set(normalize("NFKD", c))}
    return re.compile(f"[{''.join(map(re.escape, sorted(wanted | found)))}]")
