"""`prefix` against `random`, in tokens that the instances must compute."""

import random
from collections import OrderedDict
from collections.abc import Callable

from dynemo.messages.records import Load
from dynemo.router.router import Router, make_router

BLOCK = 16


class Engine:
    """Caches the prefixes that it computed last, up to the size of its cache."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.cache: OrderedDict[int, None] = OrderedDict()
        self.served = 0

    def compute(self, prompt: list[int]) -> int:
        """Computes a prompt and returns how many tokens were not cached."""
        self.served += 1
        keys: list[int] = []
        for end in range(BLOCK, len(prompt) + 1, BLOCK):
            keys.append(hash((*keys[-1:], *prompt[end - BLOCK : end])))
        cached = next((i for i, key in enumerate(keys) if key not in self.cache), len(keys))
        for key in reversed(keys):
            self.cache[key] = None
            self.cache.move_to_end(key)
        while len(self.cache) > self.blocks:
            self.cache.popitem(last=False)
        return len(prompt) - cached * BLOCK


def conversations(rng: random.Random, count: int, turns: int, shared: int) -> list[list[int]]:
    """Returns prompts in the order of arrival: interleaved turns of many conversations."""
    histories = [[rng.randrange(50_000) for _ in range(shared)] for _ in range(count)]
    order = [number for number in range(count) for _ in range(turns)]
    rng.shuffle(order)
    prompts = []
    for number in order:
        histories[number] += [rng.randrange(50_000) for _ in range(100)]
        prompts.append(list(histories[number]))
    return prompts


def played(
    router: Router, engines: dict[str, Engine], prompts: list[list[int]], at_once: int
) -> int:
    """Returns the number of computed tokens, with `at_once` requests in flight."""
    for instance in engines:
        router.add(instance)
    in_flight: list[str] = []
    computed = 0
    for prompt in prompts:
        if len(in_flight) == at_once:
            done = in_flight.pop(0)
            router.ended(done)
            router.reported(done, Load(running=in_flight.count(done)))
        name = router.choose(prompt)
        assert name is not None
        router.started(name, prompt)
        in_flight.append(name)
        computed += engines[name].compute(prompt)
    return computed


def ratio(make: Callable[[], dict[str, Engine]], prompts: list[list[int]], at_once: int) -> float:
    by_mode = {m: played(make_router(m, 3), make(), prompts, at_once) for m in ("random", "prefix")}
    return by_mode["random"] / by_mode["prefix"]


def engines(count: int, blocks: int) -> Callable[[], dict[str, Engine]]:
    return lambda: {f"i{number}": Engine(blocks) for number in range(count)}


def test_conversations_stay_where_their_history_is() -> None:
    prompts = conversations(random.Random(5), 40, 6, 1000)
    assert ratio(engines(4, 2000), prompts, at_once=8) > 2
    # If the caches cannot hold all conversations, the gain is larger: each instance holds some of
    # them.
    assert ratio(engines(4, 1200), prompts, at_once=8) > 2


def test_many_questions_about_few_documents() -> None:
    rng = random.Random(6)
    documents = [[rng.randrange(50_000) for _ in range(2000)] for _ in range(20)]
    prompts = [
        [*rng.choice(documents), *(rng.randrange(50_000) for _ in range(50))] for _ in range(400)
    ]
    assert ratio(engines(8, 1000), prompts, at_once=16) > 2


def test_one_beginning_for_all_does_not_fill_one_instance() -> None:
    rng = random.Random(7)
    system = [rng.randrange(50_000) for _ in range(4000)]
    prompts = [[*system, *(rng.randrange(50_000) for _ in range(50))] for _ in range(1000)]
    fleet = engines(8, 2000)()
    played(make_router("prefix", 3), fleet, prompts, at_once=64)
    served = sorted(engine.served for engine in fleet.values())
    assert served[0] > 80
    assert served[-1] < 170


def test_unlike_prompts_are_spread_evenly() -> None:
    rng = random.Random(8)
    prompts = [[rng.randrange(50_000) for _ in range(100)] for _ in range(800)]
    fleet = engines(8, 2000)()
    played(make_router("prefix", 3), fleet, prompts, at_once=32)
    served = [engine.served for engine in fleet.values()]
    assert min(served) > 70
    assert max(served) < 130
