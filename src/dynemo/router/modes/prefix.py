"""`prefix`: the instance that has computed most of the prompt, weighed against its load."""

import random
from collections.abc import Callable, Collection, Sequence

from dynemo.router.fleet import Member
from dynemo.router.modes.uniform import Random
from dynemo.router.prefix_tree import MAX_NODES, PrefixTree, block_keys

#: The weight of one request in flight, in blocks of prefill (16 blocks are 256 tokens). An instance
#: with k more requests than the least loaded one is chosen if it has computed over 16 k blocks.
BLOCKS_A_REQUEST = 16
#: An instance is not chosen for its prefix if its load exceeds `CROWDED` times the least load plus
#: `SLACK` requests. The instance that is chosen instead computes the prefix, so a prefix that
#: everyone uses spreads.
CROWDED = 2.0
SLACK = 8.0


def make(generator: random.Random) -> "Prefix":
    return Prefix(generator.random, generator.getrandbits(60))


class Prefix(Random):
    """Chooses the instance with the least work: blocks to compute, plus its requests in flight.

    Each request counts `BLOCKS_A_REQUEST` blocks. It compares the instances that the tree names for
    the prompt's prefix, and the least loaded one. `seed` keeps clients from creating colliding
    keys.
    """

    def __init__(self, draw: Callable[[], float], seed: int, max_nodes: int = MAX_NODES) -> None:
        super().__init__(draw)
        self._seed = seed
        self._alive: dict[int, Member] = {}
        self._tree = PrefixTree(self._alive, max_nodes)

    def add(self, instance_id: str) -> None:
        member = self._fleet.add(instance_id)
        self._alive[member.serial] = member

    def remove(self, instance_id: str) -> None:
        # The tree forgets the instance gradually: a search through all its nodes would take too
        # long.
        if member := self._fleet.remove(instance_id):
            del self._alive[member.serial]

    def started(self, instance_id: str, token_ids: Sequence[int], /) -> None:
        super().started(instance_id, token_ids)
        if member := self._fleet.get(instance_id):
            self._tree.learn(block_keys(token_ids, self._seed), member.serial)

    def _pick(self, token_ids: Sequence[int], exclude: Collection[str]) -> Member | None:
        best = self._fleet.lightest(exclude)
        if best is None or len(self._fleet) == 1:
            return best
        found = self._tree.match(block_keys(token_ids, self._seed))
        bound = CROWDED * best.load + SLACK
        cost = BLOCKS_A_REQUEST * best.load - found.get(best.serial, 0)
        for serial, blocks in found.items():
            member = self._alive[serial]
            if member.load > bound or member.id in exclude:
                continue
            its_cost = BLOCKS_A_REQUEST * member.load - blocks
            if its_cost < cost or (its_cost == cost and member.load < best.load):
                best, cost = member, its_cost
        return best
