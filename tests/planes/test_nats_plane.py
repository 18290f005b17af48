"""Faults that only NATS has: a server that stops, restarts or does not exist."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from dynemo.errors import PlaneAway, Unavailable, UsageError
from dynemo.messages.answer import Delta
from dynemo.planes.requests.nats.client import NatsSettings, subject
from dynemo.planes.requests.nats.plane import NatsRequests, nats_requests
from support.free_ports import free_port
from support.nats_process import NatsProcess
from support.planes_world import World, collect, make_request
from support.records import make_record
from support.waiting import until


@pytest.fixture
def nats() -> Iterator[NatsProcess]:
    server = NatsProcess()
    yield server
    server.stop()


def test_streams_outlive_the_server_and_requests_come_back_with_it(nats: NatsProcess) -> None:
    async def body() -> None:
        world = World("nats", nats.url)
        async with world.ingress() as ingress, world.worker() as worker:
            remote = ingress.remote(worker.record)
            worker.engine.delay = 0.02
            async with aclosing(remote.generate(make_request(1, 100))) as deltas:
                assert await anext(deltas) == Delta([1])
                nats.stop()
                deadline = time.monotonic() + 1
                while time.monotonic() < deadline:
                    began = time.monotonic()
                    with pytest.raises(Unavailable):
                        await anext(remote.generate(make_request()))
                    assert time.monotonic() - began < 5
                    await asyncio.sleep(0.05)
                began = time.monotonic()
                with pytest.raises(PlaneAway, match="is not reachable now"):
                    await anext(remote.generate(make_request()))
                assert time.monotonic() - began < 1.8  # the timeout is 2 s
                await asyncio.to_thread(nats.start)
                began = time.monotonic()
                while True:
                    try:
                        await collect(remote.generate(make_request(1, 2)))
                        break
                    except Unavailable:
                        await asyncio.sleep(0.02)
                assert time.monotonic() - began < 8
                assert await collect(deltas) == list(range(2, 101))

    asyncio.run(body())


def test_serving_without_a_connection_ends_cleanly() -> None:
    async def served(_: bytes) -> None: ...

    async def body() -> None:
        plane = NatsRequests(NatsSettings())  # the state between a closed client and the next one
        async with plane.serve(make_record("a"), served):
            pass

    asyncio.run(body())


def test_a_request_under_way_fails_when_the_server_goes(nats: NatsProcess) -> None:
    async def body() -> None:
        async with nats_requests(NatsSettings((nats.url,))) as plane:
            asked = asyncio.Event()

            async def never(_: bytes) -> None:
                asked.set()
                await asyncio.sleep(3600)

            record = make_record("x")
            world = World("nats", nats.url)
            serving = plane.serve(record, never)
            async with world.ingress() as ingress:
                await serving.__aenter__()
                asking = asyncio.create_task(
                    collect(ingress.remote(record).generate(make_request()))
                )
                await asked.wait()
                nats.stop()
                began = time.monotonic()
                with pytest.raises(PlaneAway):
                    await asking
                assert time.monotonic() - began < 1.8  # the timeout is 2 s
                for task in asyncio.all_tasks():
                    if task.get_coro().__qualname__ == "reply_to":  # type: ignore[union-attr]
                        task.cancel()
                await serving.__aexit__(None, None, None)

    asyncio.run(body())


def test_a_frozen_server_is_at_fault_and_answers_once_it_runs_again(nats: NatsProcess) -> None:
    """The answers to pings come after the client has given them up. It must still read them."""

    async def body() -> None:
        world = World("nats", nats.url)
        async with world.ingress() as ingress, world.worker() as worker:
            remote, plane = ingress.remote(worker.record), ingress.requests
            for _ in range(2):
                assert await collect(remote.generate(make_request(1, 2))) == [1, 2]
                nats.freeze()
                try:
                    with pytest.raises(PlaneAway, match="does not answer"):
                        await collect(remote.generate(make_request(1, 2)))
                    assert not remote.is_doubtful
                    await until(lambda: plane.trouble != "")
                    began = time.monotonic()
                    with pytest.raises(PlaneAway, match="does not answer"):
                        await collect(remote.generate(make_request(1, 2)))
                    assert time.monotonic() - began < 1.8  # the timeout is 2 s
                    await asyncio.sleep(1)
                finally:
                    nats.thaw()
                async with asyncio.timeout(10):
                    await plane.wait_until_up()
                assert plane.trouble == ""

    asyncio.run(body())


@pytest.mark.parametrize("wait", [0.0, 1.0])
def test_the_error_for_a_missing_server_names_its_address_and_how_to_start_one(wait: float) -> None:
    async def body() -> None:
        url = f"nats://127.0.0.1:{free_port()}"
        began = time.monotonic()
        with pytest.raises(UsageError, match=rf"{url}.*services up") as caught:
            async with nats_requests(NatsSettings((url,), wait=wait)):
                pass
        assert time.monotonic() - began < 8
        assert "--nats" in str(caught.value)

    asyncio.run(body())


def test_a_server_that_comes_late_is_waited_for() -> None:
    async def body() -> None:
        server = NatsProcess()
        server.stop()

        async def start() -> None:
            await asyncio.sleep(0.5)
            await asyncio.to_thread(server.start)

        starting = asyncio.create_task(start())
        async with nats_requests(NatsSettings((server.url,), wait=10)) as plane:
            assert plane.max_request > 1_000_000
        await starting
        server.stop()

    asyncio.run(body())


def test_one_of_several_servers_is_enough(nats: NatsProcess) -> None:
    async def body() -> None:
        urls = (f"nats://127.0.0.1:{free_port()}", nats.url)
        async with nats_requests(NatsSettings(urls)) as plane:
            assert plane.max_request > 0

    asyncio.run(body())


def test_a_permanently_closed_client_is_replaced(nats: NatsProcess) -> None:
    async def body() -> None:
        world = World("nats", nats.url)
        async with world.ingress() as ingress, world.worker() as worker:
            remote = ingress.remote(worker.record)
            assert await collect(remote.generate(make_request(1, 2))) == [1, 2]
            assert isinstance(ingress.requests, NatsRequests)
            assert ingress.requests._client is not None
            await ingress.requests._client.close()

            def is_back() -> bool:
                client = ingress.requests._client  # type: ignore[attr-defined]
                return client is not None and bool(client.is_connected)

            await until(is_back)
            assert await collect(remote.generate(make_request(1, 2))) == [1, 2]

    asyncio.run(body())


def test_an_instance_has_its_own_subject() -> None:
    assert subject(make_record("abc")) == "dynemo.dynemo.pool.generate.abc"
