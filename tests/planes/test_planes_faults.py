"""Frames that break the rules are dropped, and other streams and connections continue."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, closing, suppress
from typing import cast

import pytest
from msgspec import msgpack

from dynemo.connection.addresses import split_address
from dynemo.connection.heartbeat import Beat
from dynemo.connection.server import EngineHandler
from dynemo.connection.unauthenticated import MAX_UNAUTHENTICATED
from dynemo.errors import EngineLost, SlowReader, Unavailable
from dynemo.messages.answer import Delta, Finish
from dynemo.messages.records import Load
from dynemo.messages.wire import Envelope
from dynemo.planes.requests.memory import MemoryRequests
from dynemo.planes.responses.ingresses import ingress_connections
from dynemo.planes.responses.listen import listen
from dynemo.wire.failures import encode_error
from dynemo.wire.frames import FrameKind
from dynemo.wire.versions import SPOKEN
from support.planes_world import FakeEngine, Ingress, Worker, collect, make_request
from support.raw_peer import GARBAGE, Peer
from support.records import make_record
from support.waiting import until

_BEAT = Beat(ping=0.2, silence=2, idle=60)


@asynccontextmanager
async def _running(beat: Beat | None = None) -> AsyncIterator[tuple[Ingress, Worker]]:
    """Runs an ingress that listens on TCP and a worker that dials it. Requests use memory."""
    requests, engine = MemoryRequests(), FakeEngine()
    async with (
        listen("127.0.0.1", beat=beat) as responses,
        ingress_connections("w" * 32, EngineHandler(engine), beat=beat) as ingresses,
    ):
        record = make_record("w" * 32)
        async with requests.serve(record, ingresses.accept):
            yield Ingress(responses, requests), Worker(record, ingresses, engine)


def _address(ingress: Ingress) -> str:
    return ingress.responses.reach.loopback


@asynccontextmanager
async def _undisturbed(beat: Beat | None = None) -> AsyncIterator[tuple[Ingress, Worker]]:
    """Checks that a stream continues through the body, and that a new one is answered."""
    async with _running(beat) as (ingress, worker):
        remote = ingress.remote(worker.record)
        worker.engine.delay = 0.01
        async with aclosing(remote.generate(make_request(1, 60))) as deltas:
            assert await anext(deltas) == Delta([1])
            yield ingress, worker
            assert await collect(deltas) == list(range(2, 61))
        worker.engine.delay = 0
        assert await collect(remote.generate(make_request(5, 3))) == [5, 6, 7]
        assert len(worker.ingresses._all) == 1


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_closes_its_own_connection(name: str, caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        async with _undisturbed() as (ingress, _):
            host, port = split_address(_address(ingress))
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(GARBAGE[name])
                async with asyncio.timeout(5):
                    with suppress(ConnectionResetError):
                        assert await reader.read() == b""
            finally:
                writer.transport.abort()

    with caplog.at_level(logging.WARNING):
        asyncio.run(body())
    warnings = [r.getMessage() for r in caplog.records if r.name == "dynemo.responses"]
    assert len(warnings) == 1
    assert "127.0.0.1:" in warnings[0]


@pytest.mark.parametrize("wrong", ["key", "protocol", "instance"])
def test_a_wrong_hello_closes_its_own_connection(wrong: str) -> None:
    async def body() -> None:
        async with _undisturbed() as (ingress, _):
            peer = Peer()
            await peer.dial(_address(ingress))
            peer.greet(
                "" if wrong == "instance" else "x",
                bytes(32) if wrong == "key" else ingress.responses.key,
                SPOKEN.newest + (wrong == "protocol"),
            )
            await until(lambda: peer.is_closed)
            assert [frame.kind for frame in peer.got] == [FrameKind.ERROR] * (wrong == "protocol")

    asyncio.run(body())


def test_a_peer_that_says_nothing_is_closed_and_many_of_them_shut_nobody_out() -> None:
    async def body() -> None:
        async with _running(_BEAT) as (ingress, worker):
            host, port = split_address(_address(ingress))
            quiet = [
                socket.create_connection((host, port)) for _ in range(MAX_UNAUTHENTICATED + 50)
            ]
            assert await collect(ingress.remote(worker.record).generate(make_request())) == [
                7, 8, 9, 10, 11,
            ]  # fmt: skip
            await until(lambda: not len(ingress.responses._unauthenticated))
            for sock in quiet:
                sock.close()

    asyncio.run(body())


def test_a_token_that_is_unknown_or_another_instances_opens_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body() -> None:
        async with _undisturbed() as (ingress, worker):
            pending = ingress.responses.pending_stream(worker.record.instance.id)
            peer = Peer()
            await peer.dial(_address(ingress))
            peer.greet("other", ingress.responses.key)
            for stream, token in (
                (pending.stream, pending.token),  # the right token of another instance
                (pending.stream, bytes(16)),
                (10_000, bytes(16)),
                (1, b""),
            ):
                peer.connection.send(FrameKind.OPEN, stream, token)
                assert (await peer.next(FrameKind.ERROR)).stream == stream
                peer.connection.send(FrameKind.DATA, stream, msgpack.encode(Delta([666])))
                peer.connection.send(FrameKind.END, stream, msgpack.encode(Delta([666])))
            assert not peer.is_closed
            assert pending.stream in ingress.responses._pending  # its own instance may open it
            pending.close()
            peer.connection.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(body())
    assert len(caplog.records) == 1  # one line for the connection
    assert "token" in caplog.text


def test_a_replayed_token_opens_nothing_and_ends_nothing() -> None:
    async def body() -> None:
        tokens: list[Envelope] = []
        async with _undisturbed() as (ingress, worker):
            accept = worker.ingresses.accept

            async def spying(body: bytes) -> None:
                tokens.append(msgpack.decode(body, type=Envelope))
                await accept(body)

            assert isinstance(ingress.requests, MemoryRequests)
            ingress.requests._handlers[worker.record.instance.id] = spying
            remote = ingress.remote(worker.record)
            async with aclosing(remote.generate(make_request(1, 60))) as deltas:
                assert await anext(deltas) == Delta([1])
                # Replay the token on another connection of the same instance, and on its own.
                peer = Peer()
                await peer.dial(_address(ingress))
                peer.greet(worker.record.instance.id, ingress.responses.key)
                peer.connection.send(FrameKind.OPEN, tokens[0].stream, tokens[0].token)
                assert (await peer.next(FrameKind.ERROR)).stream == tokens[0].stream
                for ingress_connection in worker.ingresses._all:
                    ingress_connection.connection.send(
                        FrameKind.OPEN, tokens[0].stream, tokens[0].token
                    )
                peer.connection.close()
                assert await collect(deltas) == list(range(2, 61))
            peer = Peer()
            await peer.dial(_address(ingress))
            peer.greet(worker.record.instance.id, ingress.responses.key)
            peer.connection.send(FrameKind.OPEN, tokens[0].stream, tokens[0].token)
            await peer.next(FrameKind.ERROR)
            peer.connection.close()

    asyncio.run(body())


@pytest.mark.parametrize(
    ("kind", "stream", "body"),
    [
        (FrameKind.REQUEST, 1, b""),
        (FrameKind.CANCEL, 99, b"x"),
        (FrameKind.PONG, 0, b"\xc1"),
        (FrameKind.DATA, 99, b"\xc1"),
        (FrameKind.HELLO, 5, b""),
        (FrameKind.END, 0, b""),
    ],
)
def test_a_frame_out_of_place_is_dropped(kind: FrameKind, stream: int, body: bytes) -> None:
    async def main() -> None:
        async with _undisturbed() as (ingress, _):
            peer = Peer()
            await peer.dial(_address(ingress))
            peer.greet("other", ingress.responses.key)
            await peer.next(FrameKind.PING)
            peer.connection.send(kind, stream, body)
            await asyncio.sleep(0.05)
            assert not peer.is_closed
            peer.connection.send(FrameKind.PONG, 0, msgpack.encode(Load(3, 2, 0.5)))
            await until(lambda: ingress.responses.load_of("other") == Load(3, 2, 0.5))
            peer.connection.close()

    asyncio.run(main())


def test_frames_of_a_later_release_are_skipped_on_both_sides(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Before a HELLO such a frame closes the connection: see "unknown kind" above."""

    async def body() -> None:
        async with _undisturbed() as (ingress, worker):
            [ours] = ingress.responses._workers[worker.record.instance.id]
            [theirs] = worker.ingresses._all
            for connection in (ours.connection, theirs.connection):
                for stream in (0, 1, 2, 3, 4242):
                    connection.send(cast(FrameKind, 99), stream, b"of a later release")
            await asyncio.sleep(0.05)
            assert ours.connection.is_open

    with caplog.at_level(logging.DEBUG, "dynemo"):
        asyncio.run(body())
    assert not caplog.records


def test_a_second_request_on_a_stream_breaks_the_protocol(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body() -> None:
        async with _undisturbed() as (ingress, worker):
            remote = ingress.remote(worker.record)
            async with aclosing(remote.generate(make_request(1, 60))) as deltas:
                await anext(deltas)
                [ours] = ingress.responses._workers[worker.record.instance.id]
                stream = max(ours._buffers)
                ours.connection.send(FrameKind.REQUEST, stream, msgpack.encode(make_request(9)))
                assert await collect(deltas) == list(range(2, 61))

    asyncio.run(body())
    assert "kind REQUEST on stream 2 arrived while the stream was OPEN" in caplog.text


def test_an_answer_before_its_open_breaks_the_protocol(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        async with _undisturbed() as (ingress, worker):
            instance_id = worker.record.instance.id
            with closing(ingress.responses.pending_stream(instance_id)) as pending:
                peer = Peer()
                await peer.dial(_address(ingress))
                peer.greet(instance_id, ingress.responses.key)
                peer.connection.send(FrameKind.DATA, pending.stream, msgpack.encode(Delta([666])))
                peer.connection.send(FrameKind.OPEN, pending.stream, pending.token)
                peer.connection.send(FrameKind.DATA, pending.stream, msgpack.encode(Delta([7])))
                assert await pending.buffer.take() == Delta([7])
            peer.connection.close()

    asyncio.run(body())
    assert "kind DATA on stream 2 arrived while the stream was PENDING" in caplog.text


def test_a_worker_that_refuses_a_pending_stream_ends_it() -> None:
    async def body() -> None:
        async with _undisturbed() as (ingress, worker):
            instance_id = worker.record.instance.id
            with closing(ingress.responses.pending_stream(instance_id)) as pending:
                [theirs] = worker.ingresses._all
                error = encode_error(Unavailable("Not now.", retry_after=5))
                theirs.connection.send(FrameKind.ERROR, pending.stream, error)
                with pytest.raises(Unavailable, match="Not now") as caught:
                    await pending.buffer.take()
                assert caught.value.retry_after == 5

    asyncio.run(body())


def test_a_finish_of_a_later_release_ends_its_stream() -> None:
    """Otherwise the pool would ask every other instance for this answer, without success."""

    async def body() -> None:
        async with _undisturbed() as (ingress, worker):
            instance_id = worker.record.instance.id
            with closing(ingress.responses.pending_stream(instance_id)) as pending:
                peer = Peer()
                await peer.dial(_address(ingress))
                peer.greet(instance_id, ingress.responses.key)
                peer.connection.send(FrameKind.OPEN, pending.stream, pending.token)
                last = [[7], [], ["content_filter", 3, 4], 0, b"", [0, 0, 0.0]]
                peer.connection.send(FrameKind.END, pending.stream, msgpack.encode(last))
                assert await pending.buffer.take() == Delta([7], finish=Finish("stop", 3, 4))
            peer.connection.close()

    asyncio.run(body())


def test_a_broken_answer_loses_its_own_stream_alone() -> None:
    async def body() -> None:
        async with _undisturbed() as (ingress, worker):
            remote = ingress.remote(worker.record)
            deltas = remote.generate(make_request(1, 500))
            await anext(deltas)
            for ingress_connection in worker.ingresses._all:
                ingress_connection.connection.send(FrameKind.DATA, 2, b"\xc1 not msgpack")
            with pytest.raises(EngineLost, match="broke the protocol"):
                await collect(deltas)
            await until(lambda: worker.engine.running == 1)

    asyncio.run(body())


def test_frames_out_of_place_at_the_worker_are_dropped() -> None:
    async def body() -> None:
        async with _undisturbed() as (ingress, worker):
            connection = next(iter(ingress.responses._workers[worker.record.instance.id]))
            for kind in FrameKind:
                for stream in (0, 4242):
                    if kind is not FrameKind.PING and (stream or kind is not FrameKind.ERROR):
                        connection.connection.send(kind, stream, b"\xc1")
            await asyncio.sleep(0.05)
            assert connection.connection.is_open

    asyncio.run(body())


def test_a_reader_that_falls_behind_is_cancelled_alone() -> None:
    async def body() -> None:
        async with _running() as (ingress, worker):
            remote = ingress.remote(worker.record)
            slow = remote.generate(make_request(1_000_000_000, 300_000))
            await anext(slow)
            quick = remote.generate(make_request(1, 400))
            assert await collect(quick) == list(range(1, 401))
            await until(lambda: worker.engine.running == 0, 10)
            assert worker.engine.closed == 2
            with pytest.raises(SlowReader):
                await collect(slow)

    asyncio.run(body())


@pytest.mark.parametrize("side", ["worker", "ingress"])
def test_a_silent_peer_is_noticed_by_its_heartbeats(side: str) -> None:
    """The other end of the socket still reads, but sends nothing."""

    async def body() -> None:
        async with _running(_BEAT) as (ingress, worker):
            worker.engine.hold = True
            deltas = ingress.remote(worker.record).generate(make_request())
            await anext(deltas)
            (ingress_connection,) = worker.ingresses._all
            (incoming,) = ingress.responses._workers[worker.record.instance.id]
            frozen = ingress_connection.connection if side == "worker" else incoming.connection
            frozen.heard = float("inf")  # the frozen side itself ignores silence
            frozen.send = lambda *_: None  # type: ignore[method-assign]
            frozen._on_frames = lambda _: None
            loop = asyncio.get_running_loop()
            began = loop.time()
            async with asyncio.timeout(10):
                with pytest.raises(EngineLost):
                    await anext(deltas)
                await until(lambda: worker.engine.running == 0)
            assert loop.time() - began > 0.3

    asyncio.run(body())


def test_a_worker_that_wakes_up_late_finds_its_token_gone() -> None:
    async def body() -> None:
        async with _running() as (ingress, worker):
            ingress.responses.open_seconds = 0.1
            late: list[bytes] = []

            async def sleeping(body: bytes) -> None:
                late.append(body)

            assert isinstance(ingress.requests, MemoryRequests)
            ingress.requests._handlers[worker.record.instance.id] = sleeping
            worker.engine.hold = True
            with pytest.raises(EngineLost, match="did not answer in"):
                await anext(ingress.remote(worker.record).generate(make_request()))
            await worker.ingresses.accept(late[0])
            await until(lambda: worker.engine.closed == 1 and not worker.ingresses.running)

    asyncio.run(body())


def test_an_unreachable_ingress_learns_the_address_that_failed() -> None:
    async def body() -> None:
        async with _running() as (ingress, worker):
            ingress.responses.reach = type(ingress.responses.reach)(["127.0.0.1:1"], "")
            with pytest.raises(Exception, match=r"cannot reach .*127\.0\.0\.1:1.*--advertise"):
                await anext(ingress.remote(worker.record).generate(make_request()))
            assert not worker.ingresses.running

    asyncio.run(body())


def test_an_envelope_that_does_not_decode_is_refused() -> None:
    async def body() -> None:
        async with _running() as (ingress, worker):
            with pytest.raises(Exception, match="does not decode"):
                await worker.ingresses.accept(b"\xc1")
            assert await collect(ingress.remote(worker.record).generate(make_request(1, 2)))

    asyncio.run(body())
