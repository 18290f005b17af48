"""`in=http out=vllm` against `vllm serve` on the same model, with the same options."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
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

_READY_SECONDS = 400.0
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
    """vLLM's own server, ready to answer."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    place = ["--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(CONTEXT)]
    process = subprocess.Popen(
        [python, "-m", "vllm.entrypoints.cli.main", "serve", str(model), *place, *_OPTIONS],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # its core and workers end with it
    )
    try:
        _await_health(process, port)
        yield Served(port, process.pid)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _await_health(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.5)
    raise RuntimeError("vllm serve did not start")
