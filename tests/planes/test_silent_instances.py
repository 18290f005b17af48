"""If an instance does not answer a request, the pool prefers others until it answers."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from dynemo.connection.heartbeat import Beat
from dynemo.connection.server import EngineHandler
from dynemo.errors import InstanceSilent, PlaneAway
from dynemo.messages.records import InstanceRecord
from dynemo.planes.responses.ingresses import IngressConnections, ingress_connections
from dynemo.router.router import make_router
from dynemo.serving.migration import TextCodec
from dynemo.serving.pool import Pool
from support.planes_world import FakeEngine, World, collect, make_request
from support.records import make_record
from support.waiting import until


@dataclass
class GatedWorker:
    """A worker whose requests wait until the test opens its door."""

    record: InstanceRecord
    engine: FakeEngine
    ingresses: IngressConnections
    door: asyncio.Event  #: open at first
    waiting: int = 0

    async def accept(self, envelope: bytes) -> None:
        self.waiting += 1
        # Like another process, it continues after the client has given up.
        await asyncio.shield(self.ingresses.tasks.create_task(self._accept(envelope)))

    async def _accept(self, envelope: bytes) -> None:
        await self.door.wait()
        await self.ingresses.accept(envelope)


@asynccontextmanager
async def _worker(world: World, name: str) -> AsyncIterator[GatedWorker]:
    engine, record = FakeEngine(), make_record(name)
    source = EngineHandler(engine)
    async with ingress_connections(
        name, source, beat=world.beat, dial=world.network.dial
    ) as ingresses:
        it = GatedWorker(record, engine, ingresses, asyncio.Event())
        it.door.set()
        async with world.memory.serve(record, it.accept):
            yield it


@asynccontextmanager
async def _two(beat: Beat | None = None) -> AsyncIterator[tuple[Pool, GatedWorker, GatedWorker]]:
    world = World("memory", beat=beat or Beat())
    async with (
        world.ingress() as ingress,
        _worker(world, "a" * 32) as one,
        _worker(world, "b" * 32) as other,
    ):
        pool = Pool(make_router("round-robin"), TextCodec(lambda _: [], lambda _: ""), 3)
        for worker in (one, other):
            pool.add(ingress.remote(worker.record))
        yield pool, one, other


async def _ask(pool: Pool, times: int) -> None:
    for _ in range(times):
        assert len(await collect(pool.generate(make_request()))) == 5


def test_only_the_first_requests_wait_for_it(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        async with _two() as (pool, silent, other):
            silent.door.clear()
            first = asyncio.create_task(_ask(pool, 1))
            await until(lambda: silent.waiting == 1)
            await asyncio.sleep(0.4)
            await _ask(pool, 5)  # the first one still waits
            assert not first.done()
            await first
            await _ask(pool, 5)
            assert (silent.waiting, len(other.engine.seen)) == (1, 11)
            silent.door.set()  # it answers the first request, too late
            await until(lambda: not pool.remotes[0].is_doubtful)
            await _ask(pool, 4)
            assert (silent.waiting, len(other.engine.seen)) == (3, 13)

    asyncio.run(body())
    said = [r.levelno for r in caplog.records if "get requests first" in r.message]
    assert said == [logging.WARNING]


def test_a_silent_instance_gets_requests_if_no_other_exists() -> None:
    async def body() -> None:
        async with _two() as (pool, silent, other):
            pool.remove(other.record.instance.id)
            silent.door.clear()
            for _ in range(2):
                with pytest.raises(InstanceSilent):
                    await _ask(pool, 1)
            silent.door.set()
            await _ask(pool, 1)

    asyncio.run(body())


def test_an_outage_of_the_plane_does_not_prove_that_an_instance_answers() -> None:
    async def body() -> None:
        world = World("memory")
        async with world.ingress() as ingress, _worker(world, "a" * 32) as worker:
            remote = ingress.remote(worker.record)
            world.memory.is_away = True
            with pytest.raises(PlaneAway):
                await collect(remote.generate(make_request()))
            assert not remote.is_doubtful
            world.memory.is_away = False
            worker.door.clear()
            with pytest.raises(InstanceSilent):
                await collect(remote.generate(make_request()))
            world.memory.is_away = True
            with pytest.raises(PlaneAway):
                await collect(remote.generate(make_request()))
            assert remote.is_doubtful
            worker.door.set()
            await until(lambda: not remote.is_doubtful)

    asyncio.run(body())


def test_an_instance_with_a_late_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """It got no request since it fell silent, and no request waits for it."""

    async def body() -> None:
        async with _two(Beat(ping=0.1, silence=1.2)) as (pool, silent, other):
            await _ask(pool, 2)
            (ingress_connection,) = silent.ingresses._all
            with monkeypatch.context() as patch:
                patch.setattr(ingress_connection.connection, "send", lambda *_: None)
                await until(lambda: pool.remotes[0].is_doubtful)
                await _ask(pool, 2)
                assert (silent.waiting, len(other.engine.seen)) == (1, 3)
            await until(lambda: not pool.remotes[0].is_doubtful)
            await _ask(pool, 2)
            assert silent.waiting == 2

    asyncio.run(body())


def test_a_draining_instance_gets_no_request_if_another_exists() -> None:
    """Discovery may still list it, for example while etcd is away."""

    async def body() -> None:
        async with _two() as (pool, draining, other):
            await _ask(pool, 2)
            draining.ingresses.drain()
            await until(lambda: pool.remotes[0].is_doubtful)
            await _ask(pool, 4)
            assert (draining.waiting, len(other.engine.seen)) == (1, 5)

    asyncio.run(body())
