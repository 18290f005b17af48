"""A cluster of nats-servers. If one is killed, requests continue."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from dynemo.planes.requests.nats.client import NatsSettings
from dynemo.planes.requests.nats.plane import NatsRequests
from dynemo.router.router import make_router
from dynemo.serving.migration import TextCodec
from dynemo.serving.pool import Pool
from support.free_ports import free_port
from support.nats_process import NatsProcess
from support.planes_world import Ingress, World, collect, make_request
from support.waiting import until


@pytest.fixture
def cluster() -> Iterator[list[NatsProcess]]:
    routes = [f"nats://127.0.0.1:{free_port()}" for _ in range(3)]
    servers: list[NatsProcess] = []
    try:
        for own in routes:
            options = ("--cluster_name", "c", "--cluster", own, "--routes", ",".join(routes))
            servers.append(NatsProcess(*options))
        yield servers
    finally:
        for server in servers:
            server.stop()


def _server_of(ingress: Ingress, cluster: list[NatsProcess]) -> NatsProcess:
    assert isinstance(ingress.requests, NatsRequests)
    client = ingress.requests._client
    assert client is not None
    assert client.connected_url is not None
    return next(s for s in cluster if s.port == client.connected_url.port)


async def _pool(ingress: Ingress, *records: object) -> Pool:
    pool = Pool(make_router("round-robin"), TextCodec(lambda _: [], lambda _: ""), 3)
    for record in records:
        pool.add(ingress.remote(record))  # type: ignore[arg-type]
    # A server learns of a subscription at another server only after a while.
    for remote in pool.remotes:
        async with asyncio.timeout(10):
            while True:
                try:
                    await collect(remote.generate(make_request(1, 2)))
                    break
                except Exception:
                    await asyncio.sleep(0.05)
    return pool


def test_a_server_is_killed_and_no_request_fails(cluster: list[NatsProcess]) -> None:
    """The test kills one server after the other until one is left."""
    settings = NatsSettings(tuple(server.url for server in cluster))

    async def body() -> None:
        world = World("nats", nats=settings)
        async with world.ingress() as ingress, world.worker() as one, world.worker() as other:
            pool = await _pool(ingress, one.record, other.record)
            done, stop = 0, asyncio.Event()

            async def ask() -> None:
                nonlocal done
                while not stop.is_set():
                    assert await collect(pool.generate(make_request(1, 3))) == [1, 2, 3]
                    done += 1
                    await asyncio.sleep(0.01)

            async with asyncio.TaskGroup() as tasks:
                for _ in range(4):
                    tasks.create_task(ask())
                for _ in range(2):
                    victim = _server_of(ingress, cluster)
                    await asyncio.to_thread(victim.stop)
                    cluster.remove(victim)
                    goal = done + 50
                    await until(lambda: done > goal)  # noqa: B023
                stop.set()

    asyncio.run(body())


def test_a_server_is_frozen_and_no_request_fails(cluster: list[NatsProcess]) -> None:
    settings = NatsSettings(tuple(server.url for server in cluster))

    async def body() -> None:
        world = World("nats", nats=settings)
        async with world.ingress() as ingress, world.worker() as one, world.worker() as other:
            pool = await _pool(ingress, one.record, other.record)
            victim = _server_of(ingress, cluster)
            victim.freeze()
            for _ in range(20):
                assert await collect(pool.generate(make_request(1, 3))) == [1, 2, 3]
            assert _server_of(ingress, cluster) is not victim

    asyncio.run(body())


def test_a_request_at_the_moment_of_the_loss_waits_for_another_server() -> None:
    """The client knows that its connection is lost before it says so."""

    class Lost:
        is_connected = False
        servers = (1, 2)

    async def body() -> None:
        plane = NatsRequests(NatsSettings(("nats://a:1", "nats://b:2")))
        client: Any = Lost()
        plane._client = client
        plane._up.set()
        waiting = asyncio.ensure_future(plane._connected())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        client.is_connected = True
        plane._up.set()
        assert await waiting is client

    asyncio.run(body())
