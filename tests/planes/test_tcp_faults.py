"""Frames that break the rules at a worker's own port, the port of the TCP request plane."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from dynemo.connection.server import EngineHandler
from dynemo.errors import InstanceGone
from dynemo.planes.requests.tcp import TcpRequests, tcp_request_server
from dynemo.planes.responses.ingresses import ingress_connections
from dynemo.planes.responses.listen import listen
from dynemo.wire.frames import FrameKind
from support.planes_world import FakeEngine, Ingress, Worker, collect, make_request
from support.raw_peer import GARBAGE, Peer
from support.records import make_record
from support.waiting import until


@asynccontextmanager
async def _called() -> AsyncIterator[tuple[Ingress, Worker]]:
    engine = FakeEngine()
    async with (
        listen("127.0.0.1") as responses,
        ingress_connections("w" * 32, EngineHandler(engine)) as ingresses,
        tcp_request_server(ingresses) as server,
    ):
        record = make_record("w" * 32, server)
        async with server.serve(record, ingresses.accept):
            yield Ingress(responses, TcpRequests(responses)), Worker(record, ingresses, engine)


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_at_the_workers_port_closes_its_own_connection(name: str) -> None:
    async def body() -> None:
        async with _called() as (ingress, worker):
            remote = ingress.remote(worker.record)
            worker.engine.delay = 0.01
            async with aclosing(remote.generate(make_request(1, 30))) as deltas:
                await anext(deltas)
                peer = Peer()
                await peer.dial(worker.record.loopback)
                assert peer.connection._transport is not None
                peer.connection._transport.write(GARBAGE[name])
                await until(lambda: peer.is_closed)
                assert await collect(deltas) == list(range(2, 31))

    asyncio.run(body())


@pytest.mark.parametrize("wrong", ["key", "instance", "record"])
def test_the_worker_takes_no_request_without_its_key(wrong: str) -> None:
    async def body() -> None:
        async with _called() as (ingress, worker):
            if wrong == "record":
                worker.record = make_record("w" * 32)  # it has no address
            else:
                peer = Peer()
                await peer.dial(worker.record.loopback)
                key = bytes(32) if wrong == "key" else bytes.fromhex(worker.record.key)
                peer.greet("w" * 32 if wrong == "key" else "other", key)
                peer.connection.send(FrameKind.OPEN, 1, b"")
                await until(lambda: peer.is_closed)
                assert not peer.got
                return
            with pytest.raises(InstanceGone):
                await anext(ingress.remote(worker.record).generate(make_request()))

    asyncio.run(body())
