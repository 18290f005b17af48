"""The promises of all router modes, and the specifics of each."""

from collections import Counter

import pytest

from dynemo.errors import UsageError
from dynemo.messages.records import Load
from dynemo.router.modes import MODES
from dynemo.router.modes.prefix import CROWDED, SLACK
from dynemo.router.router import Router, make_router

PROMPT = list(range(1000))
#: Modes that prefer some instances even if the prompts differ and all loads are equal.
UNEVEN: frozenset[str] = frozenset()


def filled(mode: str, instances: int) -> Router:
    router = make_router(mode, seed=1)
    for number in range(instances):
        router.add(f"i{number}")
    return router


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=[mode for mode in MODES if mode not in UNEVEN])
def even(request: pytest.FixtureRequest) -> str:
    """A mode that gives all instances the same share."""
    name: str = request.param
    return name


def test_a_mode_that_does_not_exist() -> None:
    with pytest.raises(
        UsageError, match='Unknown value "best" for --router-mode; choose one of random'
    ):
        make_router("best")


def test_without_instances_there_is_no_choice(mode: str) -> None:
    router = make_router(mode)
    assert router.choose(PROMPT) is None
    assert len(router) == 0


@pytest.mark.parametrize("instances", [1, 2, 16, 17, 100])
def test_all_have_the_same_share(even: str, instances: int) -> None:
    router = filled(even, instances)
    assert len(router) == instances
    chosen: Counter[str | None] = Counter()
    for number in range(100 * instances):
        name = router.choose([number])
        assert name is not None
        router.started(name, [number])
        chosen[name] += 1
    assert len(chosen) == instances
    assert 60 <= min(chosen.values()) <= max(chosen.values()) <= 140


@pytest.mark.parametrize("instances", [2, 10, 40])
def test_an_excluded_instance_is_not_chosen(mode: str, instances: int) -> None:
    router = filled(mode, instances)
    router.started("i0", PROMPT)
    router.ended("i0")
    names = [f"i{number}" for number in range(instances)]
    for kept in (names[-1], names[0]):
        exclude = {name for name in names if name != kept}
        assert all(router.choose(PROMPT, exclude) == kept for _ in range(50))
    assert router.choose(PROMPT, names) is None


def test_a_third_excluded_leaves_even_shares(even: str) -> None:
    router = filled(even, 30)
    exclude = [f"i{number}" for number in range(10)]
    chosen: Counter[str | None] = Counter()
    for number in range(2000):
        name = router.choose([number], exclude)
        assert name is not None
        router.started(name, [number])
        chosen[name] += 1
    assert not set(exclude) & set(chosen)
    assert 60 <= min(chosen.values()) <= max(chosen.values()) <= 140


def test_a_removed_instance_is_not_chosen(mode: str) -> None:
    router = filled(mode, 20)
    for number in range(20):
        router.started(f"i{number}", PROMPT)
    for gone in ("i0", "i19", "i7", "i7", "never there"):
        router.remove(gone)
    assert len(router) == 17
    left = {f"i{number}" for number in range(20) if number not in (0, 7, 19)}
    chosen = {router.choose([n]) for n in range(2000)}
    assert chosen <= left
    assert chosen == left or mode in UNEVEN
    # Requests that still run there, and late reports, are harmless.
    router.ended("i7")
    router.reported("i7", Load(3, 3))
    router.add("i7")
    router.add("i7")
    assert len(router) == 18
    assert router.choose(PROMPT, {f"i{n}" for n in range(20) if n != 7}) == "i7"


def test_one_seed_makes_one_row_of_choices(mode: str) -> None:
    rows = []
    for _ in range(2):
        router = filled(mode, 50)
        rows.append([router.choose([number]) for number in range(100)])
    assert rows[0] == rows[1]


def test_round_robin_goes_round() -> None:
    router = filled("round-robin", 3)
    assert [router.choose([]) for _ in range(4)] == ["i0", "i1", "i2", "i0"]
    # An excluded instance keeps its turn for the next request.
    assert router.choose([], {"i1"}) == "i2"
    assert router.choose([]) == "i1"
    router.remove("i0")
    router.add("i3")
    assert [router.choose([]) for _ in range(3)] == ["i2", "i1", "i3"]


@pytest.mark.parametrize("mode", ["least-loaded", "prefix"])
def test_the_least_loaded_is_chosen(mode: str) -> None:
    router = filled(mode, 16)
    for number in range(16):
        for _ in range(abs(number - 9)):
            router.started(f"i{number}", [])
    assert all(router.choose([]) == "i9" for _ in range(20))
    router.started("i9", [])
    router.ended("i10")
    assert all(router.choose([]) == "i10" for _ in range(20))
    router.started("i10", [])
    assert {router.choose([]) for _ in range(100)} == {"i8", "i9", "i10"}


@pytest.mark.parametrize("mode", ["least-loaded", "prefix"])
def test_requests_of_others_count_and_our_own_count_once(mode: str) -> None:
    router = filled(mode, 2)
    for _ in range(3):
        router.started("i0", [])
    router.reported("i0", Load(running=3))
    router.reported("i1", Load(running=4))
    assert router.choose([]) == "i0"
    router.started("i0", [])
    router.started("i0", [])
    assert router.choose([]) == "i1"
    router.reported("i1", Load(running=0))
    router.reported("i0", Load(running=0))
    assert router.choose([]) == "i1"


def test_a_queue_and_a_full_cache_count() -> None:
    router = filled("least-loaded", 2)
    router.reported("i0", Load(running=2, waiting=2))
    router.reported("i1", Load(running=5))
    assert router.choose([]) == "i1"
    router.reported("i0", Load(running=1, kv_use=0.9))
    router.reported("i1", Load(running=1, kv_use=0.1))
    assert router.choose([]) == "i1"


@pytest.mark.parametrize("mode", ["least-loaded", "prefix"])
def test_requests_under_way_count_when_an_instance_comes_back(mode: str) -> None:
    router = filled(mode, 2)
    router.started("i0", [])
    router.started("i0", [])
    router.remove("i0")
    router.ended("i0")
    router.started("i0", [])
    router.add("i0")
    assert all(router.choose([]) == "i1" for _ in range(20))
    router.ended("i0")
    router.ended("i0")
    router.ended("i0")  # one time too many: the count stays at zero
    router.started("i0", [])
    assert all(router.choose([]) == "i1" for _ in range(20))


def test_two_draws_keep_many_instances_even() -> None:
    loads = {}
    for mode in ("random", "least-loaded"):
        router = filled(mode, 1000)
        chosen: Counter[str | None] = Counter()
        for _ in range(10_000):
            name = router.choose([])
            assert name is not None
            router.started(name, [])
            chosen[name] += 1
        loads[mode] = max(chosen.values())
    assert loads["least-loaded"] <= 14 < loads["random"]


def test_a_prefix_is_found_again() -> None:
    router = filled("prefix", 100)
    router.started("i42", PROMPT)
    router.ended("i42")
    assert all(router.choose([*PROMPT, 1, 2, 3]) == "i42" for _ in range(50))
    assert all(router.choose(PROMPT[:500]) == "i42" for _ in range(50))
    assert len({router.choose([5, *PROMPT]) for _ in range(50)}) > 10
    # An instance with a longer prefix is preferred.
    router.started("i7", [*PROMPT, *range(5000, 5100)])
    router.ended("i7")
    assert router.choose([*PROMPT, *range(5000, 5200)]) == "i7"
    assert router.choose([*PROMPT, *range(5000, 5200)], {"i7"}) == "i42"


def test_an_instance_that_comes_back_has_computed_nothing() -> None:
    router = filled("prefix", 100)
    router.started("i42", PROMPT)
    router.ended("i42")
    router.remove("i42")
    router.add("i42")
    assert len({router.choose(PROMPT) for _ in range(50)}) > 10


def test_a_short_prefix_does_not_outweigh_a_request() -> None:
    router = filled("prefix", 2)
    router.started("i0", PROMPT[:200])
    assert router.choose(PROMPT[:200]) == "i1"
    router.ended("i0")
    assert router.choose(PROMPT[:200]) == "i0"


def test_a_crowded_instance_is_left_and_another_learns_the_prefix() -> None:
    router = filled("prefix", 4)
    long = list(range(30_000))
    for _ in range(int(SLACK)):
        router.started("i0", long)
    assert router.choose(long) == "i0"
    for name in ("i1", "i2", "i3"):
        router.started(name, [1])
    assert router.choose(long) == "i0"
    for _ in range(int(SLACK + CROWDED)):
        router.started("i0", long)
    other = router.choose(long)
    assert other in ("i1", "i2", "i3")
    router.started(other, long)
    assert router.choose(long) == other
