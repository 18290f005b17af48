"""Finds the texts of tokens, and the beginnings of such texts, in what a client sends."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from msgspec import json

#: How many characters of a spelling a text must have before it is looked at closer.
_DEPTH = 4
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
        self._folded = frozenset(text.lower() for text in self._texts)
        self._reasoning = frozenset(mark.lower() for mark in reasoning)
        self._beginnings = frozenset(t[:end] for t in self._folded for end in range(1, len(t)))
        self._opens = frozenset(text.lower() for text in opens)
        self._longest = max(map(len, self._folded), default=0)
        lengths: dict[str, set[int]] = defaultdict(set)
        for text in self._folded:
            lengths[text[:2]].add(len(text))
        self._lengths = {start: sorted(sizes, reverse=True) for start, sizes in lengths.items()}
        #: The characters with which a text begins or ends, apart from letters and the like.
        self.edges = frozenset(
            edge for text in self._texts for edge in (_edge(text), _edge(text[::-1])) if edge
        )
        ends = [*cuts, *reasoning]
        self._firsts = frozenset(text[0] for text in self._folded)
        stops = ["\\s*\\Z", *(re.escape(first) for first in sorted({end[0] for end in ends}))]
        stop = f"(?={'|'.join(stops)})"
        self._starts = re.compile(_starts(self._folded, stop), re.IGNORECASE)
        self._ends = re.compile("|".join((r"\s*\Z", *map(re.escape, ends))), re.IGNORECASE)
        self._lookalikes = _lookalikes(self.edges) if is_folded and self.edges else None
        self._is_odd = self._lookalikes is not None or bool(self._opens)

    def may_hold(self, text: str) -> bool:
        """Whether `hits` can find something. It takes the time of one search."""
        return self._is_odd or self._starts.search(text) is not None

    def may_hold_any(self, value: object) -> bool:
        """Whether a text inside a long value can hold something."""
        if self._is_odd:
            return True
        try:
            printed = json.encode(value)
        except (TypeError, ValueError, OverflowError):
            return True
        return any(first.isalpha() or first.encode() in printed for first in self._firsts)

    def hits(self, text: str, *, may_reason: bool) -> Iterator[int]:
        """Yields each place of a character that must be marked: where a spelling begins, or the
        beginning of one at whose end the template may cut the text. Reasoning marks are no hits if
        `may_reason`.
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
            if size := self._size_at(text, at):
                if not may_reason or text[at : at + size].lower() not in self._reasoning:
                    yield at
            elif self._is_cut(text, at):
                yield at

    def tokens_in(self, text: str) -> list[str]:
        """Returns the tokens that a tokenizer would find in a prompt, in order."""
        tokens, end = [], 0
        for found in self._starts.finditer(text):
            at = found.start()
            if at < end:
                continue
            for size in self._lengths.get(text[at : at + 2].lower(), ()):
                if text[at : at + size] in self._texts:
                    tokens.append(text[at : at + size])
                    end = at + size
                    break
        return tokens

    def _size_at(self, text: str, at: int) -> int:
        for size in self._lengths.get(text[at : at + 2].lower(), ()):
            if text[at : at + size].lower() in self._folded:
                return size
        return 0

    def _is_cut(self, text: str, at: int) -> bool:
        end = at + 1
        while end < len(text) and text[at : end + 1].lower() in self._beginnings:
            end += 1
        return self._ends.match(text, end) is not None

    def _rest_of_spelling(self, text: str) -> int | None:
        """Returns the place of the text's first word, if it goes on with what a template began."""
        start = len(text) - len(text.lstrip()) if text[:1].isspace() else 0
        head = text[start : start + self._longest].lower()
        is_whole = len(text) <= start + len(head) or not text[start + len(head) :].strip()
        for begun in self._opens if head else ():
            both = begun + head
            sizes = self._lengths.get(both[:2], ())
            if any(size > len(begun) and both[:size] in self._folded for size in sizes):
                return start
            if is_whole and both.rstrip() in self._beginnings:
                return start
        return None


def _edge(text: str) -> str:
    return next((c for c in text if not (c.isalnum() or c.isspace() or c == "_")), "")


def _starts(texts: Iterable[str], stop: str, depth: int = _DEPTH) -> str:
    """Returns a pattern for the places where `hits` has to look closer.

    There a text goes on like a spelling for some characters, or ends before that at a `stop`.
    """
    rests: dict[str, set[str]] = defaultdict(set)
    for text in texts:
        rests[text[0]].add(text[1:])
    choices = [
        re.escape(first)
        if depth == 1 or "" in rest
        else f"{re.escape(first)}(?={_starts(rest, stop, depth - 1)})"
        for first, rest in sorted(rests.items())
    ]
    return "|".join(choices if depth == _DEPTH else [*choices, stop]) or "(?!)"


def _lookalikes(edges: Iterable[str]) -> re.Pattern[str]:
    """Finds the edges, and all characters that a Unicode normalization makes an edge of."""
    from unicodedata import normalize

    wanted = set(edges)
    found = {c for c in map(chr, range(0x80, 0x10000)) if wanted & set(normalize("NFKD", c))}
    return re.compile(f"[{''.join(map(re.escape, sorted(wanted | found)))}]")
