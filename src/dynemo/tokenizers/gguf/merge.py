"""Byte-pair merging as in llama.cpp's BPE and SPM tokenizers.

Both start from single characters and join neighbours: the best pair first, and the leftmost of
equal pairs. They differ in the priority of a pair. `priorities` maps a pair, spelled as its two
halves with `joint` between them, to a number. The lowest number joins first, and a pair without a
number never joins. For BPE it is the merge's line number, and `joint` is " ". For SPM it is the
negated score of the joined token, and `joint` is "". (`llm_tokenizer_bpe_session` and
`llm_tokenizer_spm_session` in `llama-vocab.cpp`.)
"""

from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from itertools import pairwise
from math import inf

#: Scanning a list is faster than a heap up to this length, and quadratic beyond it.
SHORT = 48

_CACHED_WORDS = 1 << 16
_CACHED_LENGTH = 64


class WordCache(dict[str, list[int]]):
    """A bounded cache of short words and their ids, because most words of a text repeat."""

    def keep(self, word: str, ids: list[int]) -> None:
        if len(word) <= _CACHED_LENGTH:
            if len(self) >= _CACHED_WORDS:
                self.clear()
            self[word] = ids


def merge(parts: list[str], priorities: Mapping[str, float], joint: str) -> list[str]:
    """Returns the parts that are left when no pair joins any more. Consumes `parts`."""
    if len(parts) > SHORT:
        return _merge_long(parts, priorities, joint)
    get = priorities.get
    ranks = [get(f"{left}{joint}{right}", inf) for left, right in pairwise(parts)]
    while ranks:
        best = min(ranks)
        if best == inf:
            break
        at = ranks.index(best)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
        del ranks[at]
        if at < len(ranks):
            ranks[at] = get(f"{parts[at]}{joint}{parts[at + 1]}", inf)
        if at:
            ranks[at - 1] = get(f"{parts[at - 1]}{joint}{parts[at]}", inf)
    return parts


def _merge_long(parts: list[str], priorities: Mapping[str, float], joint: str) -> list[str]:
    get = priorities.get
    count = len(parts)
    # Neighbours by index. `count` means none on the right, -1 means none on the left.
    after = list(range(1, count + 1))
    before = list(range(-1, count - 1))
    heap = [
        (rank, at, at + 1, len(left) + len(right))
        for at, (left, right) in enumerate(pairwise(parts))
        if (rank := get(f"{left}{joint}{right}")) is not None
    ]
    heapify(heap)
    while heap:
        _, left, right, length = heappop(heap)
        joined = parts[left] + parts[right]
        # The pair is stale if one of its halves has grown or is gone.
        if not parts[left] or not parts[right] or len(joined) != length:
            continue
        parts[left], parts[right] = joined, ""
        following = after[left] = after[right]
        if following < count:
            before[following] = left
            rank = get(f"{joined}{joint}{parts[following]}")
            if rank is not None:
                heappush(heap, (rank, left, following, length + len(parts[following])))
        previous = before[left]
        if previous >= 0:
            rank = get(f"{parts[previous]}{joint}{joined}")
            if rank is not None:
                heappush(heap, (rank, previous, left, len(parts[previous]) + length))
    return list(filter(None, parts))
