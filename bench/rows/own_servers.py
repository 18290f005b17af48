"""`in=http out=ENGINE` against the engine's own server, on both models, with the same options."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from bench.client import client
from bench.plan import CONTEXT, Plan, Subject
from bench.random_checkout import cached_checkout
from bench.rows.first import ttft_row
from bench.rows.speed import check_same_prompt, speed_row
from bench.rows.turns import Pair
from bench.servers import Served, ours
from bench.table import Row
from dynemo.engines.environments import find_python
from dynemo.engines.registry import ENGINES
from dynemo.errors import EngineNotInstalled
from dynemo.models.find import demo_checkout

_GOAL = 0.97
_TTFT_GOAL = 3.0
_AT_ONCE = 10  # answers whose TTFT is one value

#: Starts the engine's own server on a checkout, in this Python.
Serve = Callable[[Path, str], AbstractContextManager[Served]]


def python_of(engine: str) -> str:
    """Raises RuntimeError where the engine is not installed."""
    try:
        return find_python(ENGINES[engine], None)
    except EngineNotInstalled as error:
        raise RuntimeError(error) from None


def own_server_rows(
    plan: Plan,
    engine: str,
    *,
    people: str,
    options: list[str],
    serve: Serve,
    settle: float = 0.0,
) -> list[Row]:
    """`people` is the engine's name among people; `settle` is that of `Pair`. Raises as `python_of`
    does."""
    python = python_of(engine)
    words = [f"out={engine}", "--engine-python", python, "--context-length", str(CONTEXT)]
    rows = []
    for name, model in (
        ("random weights", cached_checkout(plan.random_sizes)),
        ("demo model", demo_checkout()),
    ):
        subject = Subject(f"{name}, {people}", model)
        with (
            ours(model, *words, options=options) as one,
            serve(model, python) as other,
            client() as load,
        ):
            rows += engine_rows(plan, Pair(one, other, load, settle=settle), subject)
    return rows


def engine_rows(plan: Plan, both: Pair, subject: Subject) -> list[Row]:
    """Tokens/s at 1 and 8 streams, and TTFT."""
    check_same_prompt(both)
    rows = [speed_row(plan, both, subject, streams, goal=_GOAL) for streams in (1, 8)]
    return [*rows, ttft_row(plan, both, subject, goal=_TTFT_GOAL, at_once=_AT_ONCE)]
