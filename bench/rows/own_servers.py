"""`in=http out=ENGINE` against the engine's own server, on both models, with the same options."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import TypeVar

from bench.client import Client, client
from bench.plan import CONTEXT, Plan, Subject
from bench.random_checkout import cached_checkout
from bench.rows.first import ttft_row
from bench.rows.speed import check_same_prompt, speed_row
from bench.rows.turns import Pair
from bench.servers import Served, ours
from bench.table import Row, both_orders
from dynemo.environments.find import find_python
from dynemo.environments.registry import ENGINES
from dynemo.errors import EngineNotInstalled
from dynemo.models.find import demo_checkout

_GOAL = 0.97
_ANSWERS = 10  # answers per value, which is the median of their TTFTs

Peer = TypeVar("Peer")  # the interface of a peer

#: Starts the engine's own server on a checkout, in this Python.
Serve = Callable[[Path, str], AbstractContextManager[Served]]


def python_of(engine: str) -> str:
    """Returns the engine's Python. Raises RuntimeError if the engine is not installed."""
    try:
        return find_python(ENGINES[engine], None)
    except EngineNotInstalled as error:
        raise RuntimeError(error) from None


def own_server_rows(
    plan: Plan,
    engine: str,
    *,
    display_name: str,
    options: list[str],
    serve: Serve,
    settle: float = 0.0,
) -> list[Row]:
    """Returns the rows of both models.

    `display_name` is the engine's display name, and `settle` is as in `Pair`. Raises the errors of
    `python_of`.
    """
    python = python_of(engine)
    arguments = [f"out={engine}", "--engine-python", python, "--context-length", str(CONTEXT)]
    rows = []
    for name, model in (
        ("random weights", cached_checkout(plan.random_sizes)),
        ("demo model", demo_checkout()),
    ):
        one = partial(ours, model, *arguments, options=options)
        other = partial(serve, model, python)
        pair = partial(Pair, settle=settle)
        rows += engine_rows(plan, Subject(f"{name}, {display_name}", model), one, other, pair)
    return rows


def engine_rows(
    plan: Plan,
    subject: Subject,
    one: Callable[[], AbstractContextManager[Served]],
    other: Callable[[], AbstractContextManager[Peer]],
    pair: Callable[[Served, Peer, Client], Pair],
    *,
    ttft_goal: float = 3.0,
) -> list[Row]:
    """Returns tokens/s at 1 and 8 streams, and the TTFT in milliseconds.

    `one` starts ours and `other` the peer. Both orders are measured: of two equal servers, the one
    that was loaded second was up to a tenth faster.
    """

    def rows(*, is_first: bool) -> list[Row]:
        with ExitStack() as stack:
            load = stack.enter_context(client())
            if is_first:
                mine = stack.enter_context(one())
            peer = stack.enter_context(other())
            if not is_first:
                mine = stack.enter_context(one())
            both = pair(mine, peer, load)
            check_same_prompt(both)
            speeds = [speed_row(plan, both, subject, streams, goal=_GOAL) for streams in (1, 8)]
            return [*speeds, ttft_row(plan, both, subject, goal=ttft_goal, answers=_ANSWERS)]

    return list(map(both_orders, rows(is_first=True), rows(is_first=False)))
