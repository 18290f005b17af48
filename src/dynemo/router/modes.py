"""The four ways to choose an instance; `dynemo.router.router` says what each method promises."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence

from dynemo.messages.records import Load
from dynemo.router.fleet import Fleet, Member
from dynemo.router.prefix_tree import MAX_NODES, PrefixTree, block_keys

#: How many blocks of prefill one request in flight weighs (256 tokens): an instance with k
#: requests more than the least loaded is chosen for a prefix of more than 16 k blocks.
BLOCKS_A_REQUEST = 16
#: An instance with more than `CROWDED` times the load of the least loaded one, plus `SLACK`
#: requests, is not chosen for any prefix. Whoever is chosen instead has the prefix from then on,
#: so that a beginning which everybody sends spreads.
CROWDED = 2.0
SLACK = 8.0


class Random:
    """Each instance with the same chance."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self._fleet = Fleet(draw)

    def __len__(self) -> int:
        return len(self._fleet)

    def add(self, instance_id: str) -> None:
        self._fleet.add(instance_id)

    def remove(self, instance_id: str) -> None:
        self._fleet.remove(instance_id)

    def choose(self, token_ids: Sequence[int], /, exclude: Collection[str] = ()) -> str | None:
        member = self._pick(token_ids, exclude)
        return None if member is None else member.id

    def _pick(self, _token_ids: Sequence[int], exclude: Collection[str]) -> Member | None:
        return self._fleet.random(exclude)

    def started(self, instance_id: str, _token_ids: Sequence[int], /) -> None:
        self._fleet.started(instance_id)

    def ended(self, instance_id: str) -> None:
        self._fleet.ended(instance_id)

    def reported(self, instance_id: str, load: Load) -> None:
        self._fleet.reported(instance_id, load)


class RoundRobin:
    """One after the other. One that was excluded has its turn with the next request."""

    def __init__(self) -> None:
        self._turns: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._turns)

    def add(self, instance_id: str) -> None:
        self._turns.setdefault(instance_id)

    def remove(self, instance_id: str) -> None:
        self._turns.pop(instance_id, None)

    def choose(self, _token_ids: Sequence[int], /, exclude: Collection[str] = ()) -> str | None:
        chosen = next((name for name in self._turns if name not in exclude), None)
        if chosen is not None:
            self._turns.move_to_end(chosen)
        return chosen

    def started(self, _instance_id: str, _token_ids: Sequence[int], /) -> None: ...

    def ended(self, instance_id: str) -> None: ...

    def reported(self, instance_id: str, load: Load) -> None: ...


class LeastLoaded(Random):
    """The fewest requests: this ingress's own in flight, and what the instance reports besides."""

    def _pick(self, _token_ids: Sequence[int], exclude: Collection[str]) -> Member | None:
        return self._fleet.lightest(exclude)


class Prefix(Random):
    """The least work: blocks to compute, and requests in flight at `BLOCKS_A_REQUEST` each.

    Weighed are those that the tree names for the prompt's beginning, and the least loaded one.
    `seed` keeps others from making keys that collide.
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
        # The tree forgets it bit by bit: looking for all its nodes would take too long.
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
