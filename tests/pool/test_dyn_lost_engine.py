"""A worker whose engine dies as soon as it has loaded, or that stops without its engine."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from dynemo.messages.records import Instance
from dynemo.messages.spec import EngineSpec
from dynemo.metrics import WorkerMetrics
from dynemo.models.find import find_model
from dynemo.models.load import read_model
from dynemo.planes.discovery.memory import MemoryStore, open_memory
from dynemo.planes.names import parse_name
from dynemo.planes.requests.memory import MemoryRequests
from dynemo.serving.handler import WorkerHandler
from dynemo.serving.local.child import Child, spawn
from dynemo.serving.local.instance import LocalInstance, local_instance
from dynemo.serving.worker import WorkerNetwork, serve_worker
from support.command import run
from support.short_lived import LAST_WORDS, short_lived


def test_it_ends_with_the_last_words_of_an_engine_that_is_not_started_again(
    tmp_path: Path, demo_folder: Path
) -> None:
    done = run(
        *("in=dyn://lost", "out=sglang", "--model-path", demo_folder),
        *("--engine-python", short_lived(tmp_path)),
        *("--num-nodes", "2", "--dist-init-addr", "127.0.0.1:9"),
        *("--discovery", f"file:{tmp_path / 'discovery'}", "--request-plane", "tcp"),
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"dynemo-run: {LAST_WORDS}"


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
                WorkerHandler(local, WorkerMetrics("demo")),
                card,
                WorkerNetwork(
                    "a", parse_name("dyn://lost"), discovery, lambda _: nullcontext(requests)
                ),
                grace=5,
                loaded=it_dies,
                stop=stop,
                on_ready=lambda: None,
            )

    async def body() -> None:
        async with local_instance(child, respawn) as (local, ready), asyncio.timeout(10):
            await serve(local, ready)

    asyncio.run(body())
