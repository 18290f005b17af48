"""The tree of blocks, compared with a simple model."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from dynemo.router.prefix_tree import (
    BLOCK,
    MAX_BLOCKS,
    MAX_HOLDERS,
    PrefixTree,
    block_keys,
)


class Model:
    """A slow but simple tree: prefixes as tuples, each with its holders, the most recent first."""

    def __init__(self, alive: set[int], max_nodes: int) -> None:
        self.alive = alive
        self.max_nodes = max_nodes
        self.nodes: dict[tuple[int, ...], list[int]] = {}  # least recently used first

    def learn(self, path: tuple[int, ...], holder: int) -> None:
        for length in range(len(path), 0, -1):
            holders = self.nodes.pop(path[:length], [])
            if not holders or holders[0] != holder:
                others = [h for h in holders if h != holder and h in self.alive]
                holders = [holder, *others][:MAX_HOLDERS]
            self.nodes[path[:length]] = holders
        for oldest in list(self.nodes)[: max(0, len(self.nodes) - self.max_nodes)]:
            del self.nodes[oldest]

    def match(self, path: tuple[int, ...]) -> dict[int, int]:
        found: dict[int, int] = {}
        known = [n for n in range(1, len(path) + 1) if path[:n] in self.nodes]
        for length in reversed(known):
            for holder in self.nodes[path[:length]]:
                if holder in self.alive and len(found) < MAX_HOLDERS:
                    found.setdefault(holder, length)
        return found


def keys_of(path: Sequence[int]) -> list[int]:
    return block_keys([block for block in path for _ in range(BLOCK)], 0)


PATHS = st.lists(st.integers(0, 2), max_size=7).map(tuple)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("learn"), PATHS, st.integers(0, 11)),
        st.tuples(st.just("forget"), st.just(()), st.integers(0, 11)),
    ),
    max_size=60,
)


@given(STEPS, PATHS, st.integers(1, 40))
def test_it_is_the_model(
    steps: list[tuple[str, tuple[int, ...], int]], asked: tuple[int, ...], max_nodes: int
) -> None:
    alive = set(range(12))
    tree, model = PrefixTree(alive, max_nodes), Model(alive, max_nodes)
    for step, path, holder in steps:
        if step == "forget":
            alive.discard(holder)
        elif holder in alive:
            tree.learn(keys_of(path), holder)
            model.learn(path, holder)
            # The last prompt is known, unless it alone exceeds the limit.
            assert tree.match(keys_of(path)).get(holder, 0) == min(len(path), max_nodes)
        assert len(tree) == len(model.nodes) <= max_nodes
        for prompt in (path, asked):
            assert tree.match(keys_of(prompt)) == model.match(prompt)
        # Every node has its predecessors, so a walk from the start finds it.
        assert all(node[:-1] in model.nodes for node in model.nodes if len(node) > 1)


def test_only_full_blocks_count() -> None:
    ids = list(range(3 * BLOCK + 1))
    keys = block_keys(ids, 7)
    assert len(keys) == 3
    assert block_keys(ids[: 3 * BLOCK], 7) == keys
    assert block_keys(ids[: 3 * BLOCK - 1], 7) == keys[:2]
    assert block_keys(tuple(ids), 7) == keys
    assert block_keys([], 7) == []
    assert not set(block_keys(ids, 8)) & set(keys)
    # The same block after another prefix has another key.
    assert block_keys([*ids[BLOCK : 2 * BLOCK], *ids[BLOCK : 2 * BLOCK]], 7)[1] != keys[1]


def test_a_long_prompt_is_cut() -> None:
    assert len(block_keys(range(2 * MAX_BLOCKS * BLOCK), 0)) == MAX_BLOCKS


def test_a_thousand_holders_of_one_beginning_cost_no_more_than_a_few() -> None:
    tree = PrefixTree(range(1000))
    keys = keys_of(range(50))
    for holder in range(1000):
        tree.learn(keys, holder)
    assert len(tree) == 50
    found = tree.match(keys)
    assert found == dict.fromkeys(range(999, 999 - MAX_HOLDERS, -1), 50)


def test_it_is_bounded() -> None:
    tree = PrefixTree({1}, max_nodes=100)
    for number in range(500):
        tree.learn(keys_of([number, *range(20)]), 1)
        assert len(tree) <= 100
    assert tree.match(keys_of([499, *range(20)])) == {1: 21}
    assert tree.match(keys_of([1, *range(20)])) == {}
