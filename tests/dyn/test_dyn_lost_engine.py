"""A worker whose engine dies as soon as it has loaded, or that is to stop while it is away."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from command import run

from dynemo.accounts import Accounts
from dynemo.messages import EngineSpec, Instance
from dynemo.metrics import WorkerMetrics
from dynemo.models.find import find_model
from dynemo.models.load import read_model
from dynemo.runtime.child import Child, spawn
from dynemo.runtime.discovery.memory import MemoryStore, open_memory
from dynemo.runtime.local import LocalInstance, local_instance
from dynemo.runtime.names import parse_name
from dynemo.runtime.requests.memory import MemoryRequests
from dynemo.worker import Pool, serve_worker

#: A host that says HELLO and dies in the same moment.
SHORT_LIVED = """
import socket, sys
from msgspec import json, msgpack
from dynemo.link import PROTOCOL
from dynemo.messages import Capabilities, EngineSpec, Hello, Instance
from dynemo.wire.frames import Kind, encode

spec = json.decode(open(sys.argv[-2], "rb").read(), type=EngineSpec)
instance = Instance(
    id=spec.instance,
    engine=spec.engine,
    version="0",
    device="cpu",
    context_length=8,
    slots=1,
    capabilities=Capabilities(),
)
hello = encode(Kind.HELLO, 0, msgpack.encode(Hello(PROTOCOL, instance)))
socket.socket(fileno=int(sys.argv[-1])).sendall(hello)
sys.exit("RuntimeError: no luck")
"""


def _short_lived(folder: Path) -> Path:
    """An interpreter that has every engine, each of which dies as soon as it has loaded."""
    host, program = folder / "host.py", folder / "python"
    host.write_text(SHORT_LIVED)
    program.write_text(
        '#!/bin/sh\nif [ "$1" = -c ]; then echo 3.11; exit; fi\n'
        f"exec '{sys.executable}' '{host}' \"$@\"\n"
    )
    program.chmod(0o755)
    return program


def test_it_ends_with_the_last_words_of_an_engine_that_is_not_started_again(
    tmp_path: Path, demo_folder: Path
) -> None:
    done = run(
        *("in=dyn://lost", "out=sglang", "--model-path", demo_folder),
        *("--engine-python", _short_lived(tmp_path)),
        *("--num-nodes", "2", "--dist-init-addr", "127.0.0.1:9"),
        *("--discovery", f"file:{tmp_path / 'discovery'}", "--request-plane", "tcp"),
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "dynemo-run: The engine ended with exit code 1: RuntimeError: no luck."
    )


def _nobody() -> Child:
    raise OSError(24, "Too many open files")


@pytest.mark.parametrize("respawn", [None, _nobody], ids=["ended", "starting again"])
def test_a_stop_after_the_engine_has_died_is_heard(
    respawn: Callable[[], Child] | None, demo: Path
) -> None:
    card = read_model(find_model(str(demo)), "demo", None).card()
    child = spawn(EngineSpec(engine="echo", model="", workdir="", instance="a"))
    requests = MemoryRequests()

    async def serve(local: LocalInstance, loaded: asyncio.Future[Instance]) -> None:
        stop = asyncio.Event()

        async def it_dies() -> Instance:
            instance = await loaded
            os.kill(child.process.pid, signal.SIGKILL)
            await local.down.wait()
            stop.set()
            return instance

        async with open_memory(MemoryStore()) as discovery:
            await serve_worker(
                Accounts(local, WorkerMetrics("demo")),
                card,
                Pool("a", parse_name("dyn://lost"), discovery, lambda _: nullcontext(requests)),
                grace=5,
                loaded=it_dies,
                stop=stop,
                on_ready=lambda: None,
            )

    async def body() -> None:
        async with local_instance(child, respawn) as (local, ready), asyncio.timeout(10):
            await serve(local, ready)

    asyncio.run(body())
