"""Measures two servers with one model alternately, by one client."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.client import Client, Outcome, Task
from bench.plan import Plan, Subject
from bench.random_model import cached_model
from bench.servers import Served

_SECONDS = 30.0


@dataclass(frozen=True)
class Pair:
    """Two ready servers. Only one of them gets requests at a time."""

    ours: Served
    peer: Served
    load: Client
    #: Seconds that a server needs after an answer until it stops using the CPU.
    settle: float = field(default=0.0, kw_only=True)

    def ask(self, whom: Served, body: dict[str, Any], streams: int = 1) -> Outcome:
        return self.load.run(Task(whom.port, body, streams, streams))


def subjects(plan: Plan) -> list[Subject]:
    random = Subject("random weights", cached_model(plan.random_sizes))
    return [random, Subject("demo model", None, has_goal=False)]


def in_turns(
    rounds: int, both: Pair, measure: Callable[[Served], float]
) -> tuple[Sequence[float], Sequence[float]]:
    """Calls `measure` for ours and for the peer, `rounds` times, in alternating order.

    One round before that is dropped, because it fills the prompt caches. On a busy machine there
    are fewer rounds: none begins after `_SECONDS`.
    """
    began = time.monotonic()

    def measured(server: Served) -> float:
        value = measure(server)
        time.sleep(both.settle)
        return value

    for server in (both.ours, both.peer):
        measured(server)
    one: list[float] = []
    other: list[float] = []
    for turn in range(rounds):
        if turn > 1 and time.monotonic() - began > _SECONDS:
            break
        if turn % 2:
            other.append(measured(both.peer))
            one.append(measured(both.ours))
        else:
            one.append(measured(both.ours))
            other.append(measured(both.peer))
    return one, other
