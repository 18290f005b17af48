"""The client's side of a connection. Its peer sends raw frames over a real socket pair."""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest
from msgspec import msgpack, structs

from dynemo.connection import buffer as buffer_module
from dynemo.connection.buffer import MAX_UNREAD, StreamBuffer
from dynemo.connection.client import HostClient, encode_request
from dynemo.connection.framed import FramedConnection
from dynemo.errors import (
    BodyTooLarge,
    DynemoError,
    EngineLost,
    RequestError,
    SlowReader,
    Unavailable,
)
from dynemo.messages.answer import Delta, Finish
from dynemo.messages.records import Load
from dynemo.messages.request import Request, Sampling
from dynemo.messages.wire import Hello
from dynemo.wire.failures import encode_error
from dynemo.wire.frames import MAX_BODY, Frame, FrameKind
from dynemo.wire.versions import SPOKEN
from support.records import make_instance

REQUEST = Request(id="r", token_ids=[1, 2], prompt="ab", max_tokens=9, sampling=Sampling())
INSTANCE = make_instance()
HELLO = msgpack.encode(Hello(SPOKEN.newest, INSTANCE))


class Peer:
    """The other end, which records the frames that arrive."""

    def __init__(self) -> None:
        self.got: list[Frame] = []
        self.came = asyncio.Event()
        self.connection = FramedConnection(self._take, lambda _: self.came.set())

    def _take(self, frames: list[Frame]) -> None:
        self.got += frames
        self.came.set()

    async def next(self, kind: FrameKind) -> Frame:
        while not (found := [frame for frame in self.got if frame.kind == kind]):
            self.came.clear()
            await self.came.wait()
        self.got.remove(found[0])
        return found[0]

    def say(self, kind: FrameKind, stream: int, delta: Delta) -> None:
        self.connection.send(kind, stream, msgpack.encode(delta))


@asynccontextmanager
async def _joined(hello: bytes = HELLO) -> AsyncIterator[tuple[HostClient, Peer]]:
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    client, peer = HostClient(lambda: None), Peer()
    await loop.create_unix_connection(lambda: client.connection, sock=ours)
    await loop.create_unix_connection(lambda: peer.connection, sock=theirs)
    peer.connection.send(FrameKind.HELLO, 0, hello)
    try:
        yield client, peer
    finally:
        client.connection.close()
        peer.connection.close()
        await asyncio.sleep(0.01)
        if client.greeted.done():
            client.greeted.exception()


def ask(client: HostClient, buffer: StreamBuffer | None = None) -> AsyncGenerator[Delta, None]:
    return client.ask(encode_request(REQUEST), buffer or StreamBuffer())


async def _exhaust(stream: AsyncIterator[Delta]) -> None:
    async for _ in stream:
        pass


def test_an_answer_comes_in_order_and_ends_once() -> None:
    async def body() -> None:
        async with _joined() as (client, peer):
            await client.greeted
            async with aclosing(ask(client)) as deltas:
                first = asyncio.ensure_future(anext(deltas))
                request = await peer.next(FrameKind.REQUEST)
                assert msgpack.decode(request.body, type=Request) == REQUEST
                peer.say(FrameKind.DATA, request.stream, Delta([5]))
                assert await first == Delta([5])
                peer.say(FrameKind.DATA, request.stream, Delta([6]))
                finish = Finish("stop", 2, 3)
                peer.say(FrameKind.END, request.stream, Delta([7], finish=finish))
                await asyncio.sleep(0.01)
                # All deltas that have arrived meanwhile are taken at once.
                assert [d async for d in deltas] == [Delta([6, 7], finish=finish)]
            assert not [f for f in peer.got if f.kind == FrameKind.CANCEL]

    asyncio.run(body())


def test_closing_the_stream_cancels_it_at_the_other_side() -> None:
    async def body() -> None:
        async with _joined() as (client, peer):
            await client.greeted
            deltas = ask(client)
            first = asyncio.ensure_future(anext(deltas))
            request = await peer.next(FrameKind.REQUEST)
            peer.say(FrameKind.DATA, request.stream, Delta([5]))
            await first
            await deltas.aclose()
            assert (await peer.next(FrameKind.CANCEL)).stream == request.stream
            peer.say(FrameKind.DATA, request.stream, Delta([6]))  # too late: it is dropped
            await asyncio.sleep(0.01)
            assert client.connection.is_open

    asyncio.run(body())


def test_cancelling_the_task_that_waits_cancels_the_stream() -> None:
    async def body() -> None:
        async with _joined() as (client, peer):
            await client.greeted

            async def read() -> None:
                async with aclosing(ask(client)) as deltas:
                    async for _ in deltas:
                        pass

            task = asyncio.create_task(read())
            request = await peer.next(FrameKind.REQUEST)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await peer.next(FrameKind.CANCEL)).stream == request.stream

    asyncio.run(body())


def test_an_error_is_raised_as_its_own_class() -> None:
    async def body() -> None:
        async with _joined() as (client, peer):
            await client.greeted
            waiting = asyncio.ensure_future(anext(ask(client)))
            request = await peer.next(FrameKind.REQUEST)
            peer.connection.send(
                FrameKind.ERROR, request.stream, encode_error(RequestError("no", param="top_k"))
            )
            with pytest.raises(RequestError, match="no") as caught:
                await waiting
            assert caught.value.param == "top_k"

    asyncio.run(body())


def test_a_lost_connection_breaks_every_stream_after_its_last_delta() -> None:
    async def body() -> None:
        async with _joined() as (client, peer):
            await client.greeted
            deltas = ask(client)
            first = asyncio.ensure_future(anext(deltas))
            request = await peer.next(FrameKind.REQUEST)
            peer.say(FrameKind.DATA, request.stream, Delta([5]))
            assert await first == Delta([5])
            peer.say(FrameKind.DATA, request.stream, Delta([6]))
            peer.connection.close()
            await asyncio.sleep(0.01)
            assert await anext(deltas) == Delta([6])
            with pytest.raises(EngineLost):
                await anext(deltas)
            with pytest.raises(Unavailable):
                await anext(ask(client))

    asyncio.run(body())


def test_a_reader_that_falls_behind_is_cancelled_alone() -> None:
    async def body() -> None:
        async with _joined() as (client, peer):
            await client.greeted
            slow, quick = ask(client), ask(client)
            first = asyncio.ensure_future(anext(slow))
            stream = (await peer.next(FrameKind.REQUEST)).stream
            peer.say(FrameKind.DATA, stream, Delta(texts=["x"]))
            await first
            other = asyncio.ensure_future(anext(quick))
            other_stream = (await peer.next(FrameKind.REQUEST)).stream
            for _ in range(MAX_UNREAD // 65536 + 1):
                peer.say(FrameKind.DATA, stream, Delta(texts=["x" * 65536]))
            assert (await peer.next(FrameKind.CANCEL)).stream == stream
            peer.say(FrameKind.DATA, other_stream, Delta([1]))
            assert await other == Delta([1])
            with pytest.raises(SlowReader):
                await _exhaust(slow)
            await quick.aclose()

    asyncio.run(body())


def test_unread_deltas_count_with_their_decoded_size() -> None:
    """Decoded ids need more memory than encoded ones."""

    async def body() -> None:
        buffer = StreamBuffer()
        count = 0
        while buffer.data([msgpack.encode(Delta([count]))]):
            count += 1
        assert MAX_UNREAD / 64 < count < MAX_UNREAD / 40
        assert (await buffer.take()).token_ids == list(range(count + 1))
        with pytest.raises(SlowReader):
            await buffer.take()

    asyncio.run(body())


def test_a_reader_that_stands_still_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffer_module, "MAX_STALL", 0.1)

    async def body() -> None:
        buffer = StreamBuffer()
        for _ in range(3):
            assert buffer.put(Delta([1]), 8)
        assert (await buffer.take()).token_ids == [1] * 3
        await asyncio.sleep(0.15)  # in this time nothing was unread
        assert buffer.put(Delta([2]), 8)
        await asyncio.sleep(0.15)
        assert not buffer.put(Delta([3]), 8)

    asyncio.run(body())


def test_a_reader_that_waits_for_somebody_else_is_interrupted() -> None:
    async def body() -> None:
        async with _joined() as (client, peer):
            await client.greeted
            interrupted: asyncio.Future[DynemoError] = asyncio.get_running_loop().create_future()

            async def read() -> None:
                buffer = StreamBuffer(interrupted.set_result)
                async with aclosing(ask(client, buffer)) as deltas:
                    async for _ in deltas:
                        assert isinstance(await interrupted, SlowReader)

            reading = asyncio.create_task(read())
            stream = (await peer.next(FrameKind.REQUEST)).stream
            peer.say(FrameKind.DATA, stream, Delta([1]))
            await asyncio.sleep(0.05)
            peer.say(FrameKind.DATA, stream, Delta(texts=["x" * MAX_UNREAD]))
            with pytest.raises(SlowReader):
                await reading
            assert (await peer.next(FrameKind.CANCEL)).stream == stream

    asyncio.run(body())


def test_the_load_comes_with_a_pong() -> None:
    async def body() -> None:
        async with _joined() as (client, peer):
            await client.greeted
            client.ping()
            await peer.next(FrameKind.PING)
            peer.connection.send(FrameKind.PONG, 0, msgpack.encode(Load(3, 1, 0.5)))
            await asyncio.sleep(0.01)
            assert client.load == Load(3, 1, 0.5)

    asyncio.run(body())


@pytest.mark.parametrize(
    "hello", [b"", b"\xc1", msgpack.encode(Hello(SPOKEN.newest + 1, INSTANCE)), b"\x93\x01\x02\x03"]
)
def test_a_broken_greeting_closes_the_connection(hello: bytes) -> None:
    async def body() -> None:
        async with _joined(hello) as (client, _):
            with pytest.raises(EngineLost):
                await client.greeted
            assert not client.connection.is_open

    asyncio.run(body())


def test_a_request_that_no_frame_holds_is_refused_before_it_is_asked() -> None:
    with pytest.raises(BodyTooLarge):
        encode_request(structs.replace(REQUEST, prompt="x" * MAX_BODY))
