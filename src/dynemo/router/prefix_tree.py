"""Which instance has computed which beginnings of prompts: a tree of blocks, kept by guesswork.

A node is a block of `BLOCK` tokens after all the blocks before it, and names the instances that
were last given a prompt that goes through it. A node's key is a hash over its whole beginning, so
the tree needs no edges: a dict from key to names, walked along a prompt's keys.

It is approximate: engines do not tell what they evict. What has not been used for longest is
forgotten first, and an instance that is gone is forgotten when a node that names it is next used.
"""

from collections import OrderedDict
from collections.abc import Container, Sequence
from itertools import islice

#: Tokens in a block.
BLOCK = 16
#: Nodes kept: 2 million tokens of distinct beginnings, in about 25 MB.
MAX_NODES = 1 << 17
#: Blocks of one prompt that count: 32,768 tokens. A longer beginning tells no more, and a choice
#: stays under a millisecond.
MAX_BLOCKS = 1 << 11
#: Instances that a node names: the last ones. A beginning that more of them share is cheap to
#: find elsewhere, and a walk costs the same with 10 instances as with 1,000.
MAX_HOLDERS = 8


def block_keys(token_ids: Sequence[int], seed: int) -> list[int]:
    """A key for each full block; equal for equal beginnings, in one process with one seed."""
    key = seed
    keys = []
    whole = zip(*[iter(token_ids)] * BLOCK, strict=False)  # in half the time that slices take
    for block in islice(whole, MAX_BLOCKS):
        key = hash((key, block))
        keys.append(key)
    return keys


class PrefixTree:
    """Holders are numbers; those that are not in `alive` any more count as forgotten."""

    def __init__(self, alive: Container[int], max_nodes: int = MAX_NODES) -> None:
        self._alive = alive
        self._max_nodes = max_nodes
        # The longest unused first. A prompt's nodes are used from its end to its start, so that a
        # node is always newer than those behind it: what is evicted has none behind it.
        self._nodes: OrderedDict[int, tuple[int, ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._nodes)

    def learn(self, keys: Sequence[int], holder: int) -> None:
        """`holder` is given a prompt with these keys."""
        nodes = self._nodes
        before: tuple[int, ...] | None = None
        after: tuple[int, ...] = (holder,)
        alone = after
        for key in reversed(keys):
            holders = nodes.get(key)
            if holders is None:
                nodes[key] = alone
                continue
            nodes.move_to_end(key)
            if holders[0] == holder:
                continue
            # Neighbours mostly share one tuple; they go on sharing one.
            if holders is not before:
                before, after = holders, self._with(holders, holder)
            nodes[key] = after
        while len(nodes) > self._max_nodes:
            nodes.popitem(last=False)

    def match(self, keys: Sequence[int]) -> dict[int, int]:
        """Holder -> how many of the leading blocks it has. At most `MAX_HOLDERS`, the best."""
        get = self._nodes.get
        walked: list[tuple[int, ...]] = []
        for key in keys:
            holders = get(key)
            if holders is None:
                break
            walked.append(holders)
        found: dict[int, int] = {}
        before: tuple[int, ...] | None = None
        for blocks in range(len(walked), 0, -1):
            holders = walked[blocks - 1]
            if holders is before:
                continue
            before = holders
            for holder in holders:
                if holder not in found and holder in self._alive:
                    found[holder] = blocks
                    if len(found) == MAX_HOLDERS:
                        return found
        return found

    def _with(self, holders: tuple[int, ...], holder: int) -> tuple[int, ...]:
        others = [other for other in holders if other != holder and other in self._alive]
        return (holder, *others[: MAX_HOLDERS - 1])
