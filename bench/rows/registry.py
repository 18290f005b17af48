"""A thousand registered instances against ten: time until an ingress knows them, cost of a choice.

The instances are simulated: they are only records in a real etcd.
"""

import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from statistics import median

from bench.plan import Plan
from bench.pool import Planes, ingress, planes
from bench.table import Row
from dynemo.messages.records import Load
from dynemo.router.modes import MODES
from dynemo.router.router import Router, make_router

_FEW = 10
_PROMPT = 1000  # tokens
_CONVERSATIONS = 200
_CHOICES = 200  # per round
_GOALS = {"prefix": 100.0}
_GOAL = 20.0


def registry_rows(plan: Plan) -> list[Row]:
    return [_ready_row(plan), *[_choice_row(plan, mode) for mode in MODES]]


def _ready_row(plan: Plan) -> Row:
    """Measures from the start of `dynemo-run` to a health report with all instances."""
    seconds: dict[int, list[float]] = {}
    for instances in (plan.instances, _FEW):
        with planes() as servers, _registered(servers, instances):
            seconds[instances] = [_ready(servers, instances) for _ in range(plan.readies)]
    one, other = (median(found) for found in seconds.values())
    what = f"an ingress knows {plan.instances:,} instances (peer: {_FEW})"
    return Row(what, one, "s", other, goal=2.0)


def _ready(servers: Planes, instances: int) -> float:
    began = time.perf_counter()
    with ingress(servers, instances=instances):
        return time.perf_counter() - began


@contextmanager
def _registered(servers: Planes, instances: int) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.registrations", servers.etcd, str(instances)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            if not process.stdout.readline():
                raise RuntimeError("the instances could not be registered")
            yield
        finally:
            process.stdin.close()


def _choice_row(plan: Plan, mode: str) -> Row:
    """Measures all calls of one request to a router, alternating between many and few instances."""
    turns = [_turn(mode, plan.instances), _turn(mode, _FEW)]
    rounds = [[next(turn) for turn in turns] for _ in range(plan.choices + 1)][1:]
    one, other = (median(side) for side in zip(*rounds, strict=True))
    prompt = f", a prompt of {_PROMPT:,} tokens" if mode == "prefix" else ""
    what = f"a choice among {plan.instances:,}, {mode}{prompt} (peer: among {_FEW})"
    return Row(what, one, "us", other, goal=_GOALS.get(mode, _GOAL), rounds=plan.choices)


def _turn(mode: str, instances: int) -> Iterator[float]:
    """Yields the microseconds of CPU time per request, once per call.

    Half of the prompts continue a known prompt, half are new.
    """
    rng = random.Random(1)
    router = make_router(mode, 1)
    for number in range(instances):
        router.add(f"{number:032x}")
    prompts = [_ids(rng, _PROMPT) for _ in range(_CONVERSATIONS)]
    for prompt in prompts:
        _request(router, prompt)
    for _ in count():
        asked = [
            rng.choice(prompts) if number % 2 else _ids(rng, _PROMPT) for number in range(_CHOICES)
        ]
        began = time.thread_time()
        for prompt in asked:
            _request(router, prompt)
        yield (time.thread_time() - began) / _CHOICES * 1e6


def _request(router: Router, prompt: Sequence[int]) -> None:
    chosen = router.choose(prompt)
    assert chosen is not None
    router.started(chosen, prompt)
    router.ended(chosen)
    router.reported(chosen, Load(running=1))


def _ids(rng: random.Random, size: int) -> list[int]:
    return [rng.randrange(50_000) for _ in range(size)]
