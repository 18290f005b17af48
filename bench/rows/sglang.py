"""`in=http out=sglang` against SGLang's own server on the same model, with the same options."""

import subprocess
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
#: What the adapter sets on a CPU, so that the peer has it too.
_OPTIONS = ["--attention-backend", "torch_native", "--sampling-backend", "pytorch"]
_OPTIONS += ["--dtype", "float32", "--disable-cuda-graph", "--sleep-on-idle"]
_OPTIONS += ["--max-total-tokens", str(8 * CONTEXT), "--max-running-requests", "32"]


def sglang_rows(plan: Plan) -> list[Row]:
    """On both models, on the CPU. Raises RuntimeError where SGLang is not installed."""
    try:
        python = find_python(ENGINES["sglang"], None)
    except EngineNotInstalled as error:
        raise RuntimeError(error) from None
    if subprocess.run([python, "-c", "import soundfile"], stderr=subprocess.DEVNULL).returncode:
        raise RuntimeError(f"SGLang's own server needs it: {python} -m pip install soundfile")
    rows = []
    for subject in (
        Subject("random weights, SGLang", cached_checkout(plan.random_sizes)),
        Subject("demo model, SGLang", demo_checkout()),
    ):
        with _pair(subject, python) as both:
            check_same_prompt(both)
            rows += [speed_row(plan, both, subject, streams, goal=_GOAL) for streams in (1, 8)]
            rows.append(ttft_row(plan, both, subject, goal=_TTFT_GOAL))
    return rows


@contextmanager
def _pair(subject: Subject, python: str) -> Iterator[Pair]:
    assert subject.path is not None
    words = ["out=sglang", "--engine-python", python, "--context-length", str(CONTEXT)]
    with (
        ours(subject.path, *words, options=_OPTIONS) as one,
        _serve(subject.path, python) as other,
        client() as load,
    ):
        yield Pair(one, other, load)


@contextmanager
def _serve(model: Path, python: str) -> Iterator[Served]:
    """SGLang's own server."""
    words = ["-m", "sglang.launch_server", "--model-path", str(model), "--device", "cpu"]
    words += ["--context-length", str(CONTEXT), *_OPTIONS]
    environment = {"SGLANG_USE_CPU_ENGINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # as ours
    with own_server([python, *words], **environment) as served:
        yield served
