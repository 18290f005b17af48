"""The contract of all request planes, with the response plane."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, suppress

import pytest
import uvloop

from dynemo.connection.heartbeat import Beat
from dynemo.errors import EngineLost, InstanceGone, Overloaded, RequestError, Unavailable
from dynemo.messages.answer import Delta, Finish
from dynemo.messages.records import Load
from support.nats_process import NatsProcess
from support.planes_world import KINDS, QUICK, World, collect, make_request
from support.records import make_record
from support.waiting import until

Body = Callable[[World], Awaitable[None]]
Run = Callable[..., None]


@pytest.fixture(scope="module")
def nats() -> Iterator[NatsProcess]:
    server = NatsProcess()
    yield server
    server.stop()


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def run(kind: str, loop: str, nats: NatsProcess) -> Run:
    def run(body: Body, beat: Beat | None = None, *, debug: bool = True) -> None:
        async def main() -> None:
            await body(World(kind, nats.url, beat or Beat()))

        if loop == "uvloop":
            uvloop.run(main())
        else:
            asyncio.run(main(), debug=debug)

    return run


def test_an_answer_comes_whole_and_with_its_finish(run: Run) -> None:
    async def body(world: World) -> None:
        async with world.ingress() as ingress, world.worker() as worker:
            deltas = [d async for d in ingress.remote(worker.record).generate(make_request(7, 5))]
            assert [i for d in deltas for i in d.token_ids] == [7, 8, 9, 10, 11]
            assert deltas[-1].finish == Finish("length", 1, 5)
            assert worker.engine.seen == [make_request(7, 5)]
            assert worker.engine.running == 0

    run(body)


def test_many_streams_share_the_connection_and_none_is_mixed_up(run: Run) -> None:
    async def body(world: World) -> None:
        async with world.ingress() as ingress, world.worker() as one, world.worker() as other:
            remotes = [ingress.remote(one.record), ingress.remote(other.record)]
            answers = await asyncio.gather(
                *(
                    collect(remotes[number % 2].generate(make_request(number * 1000, 64)))
                    for number in range(100)
                )
            )
            for number, answer in enumerate(answers):
                assert answer == list(range(number * 1000, number * 1000 + 64))
            assert len(one.ingresses._all) == len(other.ingresses._all) == 1

    run(body, debug=False)


def test_two_ingresses_ask_one_worker(run: Run) -> None:
    async def body(world: World) -> None:
        async with world.ingress() as one, world.ingress() as other, world.worker() as worker:
            answers = await asyncio.gather(
                *(
                    collect(ingress.remote(worker.record).generate(make_request(first, 50)))
                    for first, ingress in ((100, one), (200, other))
                )
            )
            assert answers == [list(range(100, 150)), list(range(200, 250))]

    run(body)


def test_a_worker_refuses_at_once_when_busy_and_when_draining(run: Run) -> None:
    async def body(world: World) -> None:
        async with world.ingress() as ingress, world.worker() as worker:
            remote = ingress.remote(worker.record)
            worker.engine.hold = True
            worker.ingresses.max_streams = 1
            async with aclosing(remote.generate(make_request())) as first:
                await anext(first)
                with pytest.raises(Overloaded, match="is busy"):
                    await anext(remote.generate(make_request()))
            await until(lambda: not worker.ingresses.running)

            def admit() -> None:
                raise RequestError("no", param="top_k")

            worker.ingresses.admit = admit
            with pytest.raises(RequestError, match="no") as refused:
                await anext(remote.generate(make_request()))
            assert refused.value.param == "top_k"
            worker.ingresses.drain()
            with pytest.raises(Unavailable, match="is draining"):
                await anext(remote.generate(make_request()))
            await until(lambda: remote.is_doubtful)

    run(body)


def test_an_instance_that_nobody_serves_is_gone_at_once(run: Run) -> None:
    async def body(world: World) -> None:
        async with world.ingress() as ingress:
            async with world.worker() as worker:
                remote = ingress.remote(worker.record)
                await collect(remote.generate(make_request()))
            for gone in (remote, ingress.remote(make_record("nobody"))):
                with pytest.raises(InstanceGone) as caught:
                    await anext(gone.generate(make_request()))
                assert "did not reply" not in str(caught.value)  # it failed without waiting

    run(body)


def test_closing_a_stream_reaches_the_engine(run: Run) -> None:
    async def body(world: World) -> None:
        async with world.ingress() as ingress, world.worker() as worker:
            worker.engine.hold = True
            remote = ingress.remote(worker.record)
            deltas = remote.generate(make_request())
            assert await anext(deltas) == Delta([7])
            assert worker.engine.running == 1
            await deltas.aclose()
            await until(lambda: worker.engine.running == 0)
            # Cancel it before the worker has accepted it, and before its first token.
            for turns in (0, 1, 2, 3, 5, 20):
                task = asyncio.create_task(collect(remote.generate(make_request())))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await asyncio.sleep(0.05)
            await until(lambda: worker.engine.running == 0)
            worker.engine.hold = False
            assert await collect(remote.generate(make_request(1, 3))) == [1, 2, 3]

    run(body)


def test_a_lost_worker_breaks_its_streams_after_their_last_delta(run: Run) -> None:
    async def body(world: World) -> None:
        async with world.ingress() as ingress, world.worker() as worker:
            worker.engine.hold = True
            deltas = ingress.remote(worker.record).generate(make_request())
            assert await anext(deltas) == Delta([7])
            for ingress_connection in worker.ingresses._all:
                ingress_connection.connection.abort()
            with pytest.raises(EngineLost):
                await anext(deltas)
            await until(lambda: worker.engine.running == 0)

    run(body)


def test_a_lost_ingress_cancels_its_streams_at_the_workers(run: Run) -> None:
    async def body(world: World) -> None:
        async with world.worker() as worker:
            worker.engine.hold = True
            async with world.ingress() as ingress:
                deltas = ingress.remote(worker.record).generate(make_request())
                await anext(deltas)
                assert worker.engine.running == 1
            await until(lambda: worker.engine.running == 0)
            with pytest.raises(EngineLost):
                await anext(deltas)

    run(body)


def test_a_request_longer_than_a_message_uses_its_stream(run: Run) -> None:
    async def body(world: World) -> None:
        async with world.ingress() as ingress, world.worker() as worker:
            big = make_request(70_000, 3, prompt_tokens=700_000)
            remote = ingress.remote(worker.record)
            small = [remote.generate(make_request(1, 128)) for _ in range(5)]
            answers = await asyncio.gather(
                collect(remote.generate(big)), *(collect(deltas) for deltas in small)
            )
            assert answers == [[70_000, 70_001, 70_002], *[list(range(1, 129))] * 5]
            assert worker.engine.seen.count(big) == 1

    run(body)


def test_a_draining_worker_finishes_and_hands_back_the_rest(run: Run) -> None:
    async def body(world: World) -> None:
        async with world.ingress() as ingress, world.worker() as worker:
            remote = ingress.remote(worker.record)
            worker.engine.hold = True
            held = remote.generate(make_request(7, 5))
            assert await anext(held) == Delta([7])
            worker.engine.hold = False
            worker.engine.delay = 0.02
            ends = asyncio.create_task(collect(remote.generate(make_request(1, 10))))
            await until(lambda: worker.ingresses.running == 2)
            assert await worker.ingresses.finish(0.7) == 1
            assert await ends == list(range(1, 11))
            with pytest.raises(EngineLost, match="handed back"):
                await anext(held)

    run(body)


def test_an_instance_reports_its_load_on_request(run: Run) -> None:
    async def body(world: World) -> None:
        async with world.ingress() as ingress, world.ingress() as other:
            async with world.worker() as worker:
                worker.engine.hold = True
                async with aclosing(ingress.remote(worker.record).generate(make_request())) as held:
                    await anext(held)
                    loads = [await other.requests.load(worker.record) for _ in range(2)]
                    while loads[-1] == Load():  # over TCP the load is the engine's last report
                        loads.append(await other.requests.load(worker.record))
                    assert loads[-1] == Load(1, 0, 0.5)
            with pytest.raises(InstanceGone):
                await other.requests.load(worker.record)

    run(body)


def test_heartbeats_bring_the_load_and_idle_connections_close(run: Run) -> None:
    async def body(world: World) -> None:
        async with world.ingress() as ingress, world.worker() as worker:
            remote = ingress.remote(worker.record)
            assert remote.load == Load()
            worker.engine.hold = True
            async with aclosing(remote.generate(make_request())) as deltas:
                await anext(deltas)
                await until(lambda: remote.load == Load(1, 0, 0.5))
                await asyncio.sleep(QUICK.idle + 0.2)  # the connection is neither idle nor silent
                assert worker.engine.running == 1
            worker.engine.hold = False
            await until(lambda: not worker.ingresses._all)
            assert await collect(remote.generate(make_request(1, 3))) == [1, 2, 3]

    run(body, QUICK)


def test_an_engine_error_is_raised_as_its_own_class(run: Run) -> None:
    async def body(world: World) -> None:
        async with world.ingress() as ingress, world.worker() as worker:
            with pytest.raises(Exception, match="IndexError"):
                await anext(ingress.remote(worker.record).generate(make_request(prompt_tokens=0)))
            assert worker.engine.running == 0

    run(body)
