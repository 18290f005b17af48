"""Peers in separate processes are stopped or killed."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from msgspec import json

from dynemo.connection.server import EngineHandler
from dynemo.errors import EngineLost, InstanceGone
from dynemo.messages.records import InstanceRecord
from dynemo.planes.requests.tcp import TcpRequests, tcp_request_server
from dynemo.planes.responses.ingresses import ingress_connections
from dynemo.planes.responses.listen import listen
from dynemo.serving.remote import RemoteInstance
from support.peer_program import BEAT
from support.planes_world import FakeEngine, collect, make_request
from support.program import program, program_environment
from support.records import make_record
from support.waiting import until

_PROGRAM = program("peer_program")


@asynccontextmanager
async def _process(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        _PROGRAM,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        env=program_environment(),
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def _line(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    return await process.stdout.readline()


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_a_worker_that_is_stopped_or_killed(end: str) -> None:
    async def body() -> None:
        async with _process("worker") as process, listen("127.0.0.1", beat=BEAT) as responses:
            record = json.decode(await _line(process), type=InstanceRecord)
            remote = RemoteInstance(record, TcpRequests(responses), responses)
            deltas = remote.generate(make_request(1, 100_000))
            await anext(deltas)
            process.send_signal(signal.SIGSTOP if end == "stopped" else signal.SIGKILL)
            began = time.monotonic()
            with pytest.raises(EngineLost):
                await collect(deltas)
            assert time.monotonic() - began < (BEAT.silence * (4 if end == "stopped" else 1))
            with pytest.raises(InstanceGone):
                await anext(remote.generate(make_request()))
            if end == "stopped":
                process.send_signal(signal.SIGCONT)
                await asyncio.sleep(0.2)
                assert await collect(remote.generate(make_request(1, 3))) == [1, 2, 3]
                await until(lambda: remote.load.running == 0)  # its old stream is cancelled

    asyncio.run(body())


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_an_ingress_that_is_stopped_or_killed(end: str) -> None:
    async def body() -> None:
        engine = FakeEngine()
        engine.delay = 0.01
        async with (
            ingress_connections("w" * 32, EngineHandler(engine), beat=BEAT) as ingresses,
            tcp_request_server(ingresses) as server,
        ):
            record = make_record("w" * 32, server)
            async with (
                server.serve(record, ingresses.accept),
                _process("ingress", json.encode(record).decode()) as process,
            ):
                for _ in range(3):
                    await _line(process)
                assert engine.running == 1
                process.send_signal(signal.SIGSTOP if end == "stopped" else signal.SIGKILL)
                await until(lambda: engine.running == 0)

    asyncio.run(body())
