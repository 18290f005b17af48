"""An estimate of which instances have computed which prompt prefixes, as a tree of blocks.

A node is a block of `BLOCK` tokens after all the blocks before it. It names the instances that last
received a prompt with these blocks. A node's key is a hash of its whole prefix, so the tree needs
no edges: it is a dict from key to names, walked along a prompt's keys.

It is approximate, because engines do not report what they evict. The least recently used nodes are
forgotten first. A removed instance is forgotten when a node that names it is next used.
"""

from collections import OrderedDict
from collections.abc import Container, Sequence
from itertools import islice

#: Tokens per block.
BLOCK = 16
#: The maximum number of nodes: 2 million tokens of distinct prefixes, in about 25 MB.
MAX_NODES = 1 << 17
#: The maximum number of blocks per prompt: 32,768 tokens. A longer prefix adds no information, and
#: the limit keeps a choice under a millisecond.
MAX_BLOCKS = 1 << 11
#: How many instances a node names: the most recent ones. A prefix on more instances is easy to find
#: anyway, and a walk costs the same with 10 instances as with 1,000.
MAX_HOLDERS = 8


def block_keys(token_ids: Sequence[int], seed: int) -> list[int]:
    """Returns a key per full block.

    Equal prefixes have equal keys, in one process and with one seed.
    """
    key = seed
    keys = []
    whole = zip(*[iter(token_ids)] * BLOCK, strict=False)  # twice as fast as slices
    for block in islice(whole, MAX_BLOCKS):
        key = hash((key, block))
        keys.append(key)
    return keys


class PrefixTree:
    """The tree.

    Instances are numbers here; numbers that are missing in `alive` count as forgotten.
    """

    def __init__(self, alive: Container[int], max_nodes: int = MAX_NODES) -> None:
        self._alive = alive
        self._max_nodes = max_nodes
        # Ordered by use, oldest first. A prompt's nodes are touched from its end to its start, so a
        # node is always newer than its successors: an evicted node has no successors.
        self._nodes: OrderedDict[int, tuple[int, ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._nodes)

    def learn(self, keys: Sequence[int], holder: int) -> None:
        """Records that the instance `holder` received a prompt with these keys."""
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
            # Neighbours mostly share one tuple. They keep sharing one.
            if holders is not before:
                before, after = holders, self._with(holders, holder)
            nodes[key] = after
        while len(nodes) > self._max_nodes:
            nodes.popitem(last=False)

    def match(self, keys: Sequence[int]) -> dict[int, int]:
        """Returns how many leading blocks each instance has, for the best `MAX_HOLDERS` of them."""
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
