"""`in=http out=sglang` against SGLang's own server, on the CPU."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.plan import CONTEXT, Plan
from bench.rows.own_servers import own_server_rows, python_of
from bench.servers import Served, own_server
from bench.table import Row

#: The adapter's settings on a CPU, so that the peer has them, too.
_OPTIONS = ["--attention-backend", "torch_native", "--sampling-backend", "pytorch"]
_OPTIONS += ["--dtype", "float32", "--disable-cuda-graph", "--sleep-on-idle"]
_OPTIONS += ["--max-total-tokens", str(8 * CONTEXT), "--max-running-requests", "32"]


def sglang_rows(plan: Plan) -> list[Row]:
    """Measures both models.

    Raises RuntimeError if SGLang, or a requirement of its server, is missing.
    """
    python = python_of("sglang")
    if subprocess.run([python, "-c", "import soundfile"], stderr=subprocess.DEVNULL).returncode:
        raise RuntimeError(f"SGLang's own server needs it: pip --python {python} install soundfile")
    return own_server_rows(plan, "sglang", display_name="SGLang", options=_OPTIONS, serve=_serve)


@contextmanager
def _serve(model: Path, python: str) -> Iterator[Served]:
    """Starts SGLang's own server."""
    arguments = ["-m", "sglang.launch_server", "--model-path", str(model), "--device", "cpu"]
    arguments += ["--context-length", str(CONTEXT), *_OPTIONS]
    environment = {"SGLANG_USE_CPU_ENGINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # as ours
    with own_server([python, *arguments], **environment) as served:
        yield served
