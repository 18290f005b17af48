"""A worker forwards an engine host's frames to the ingress."""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from msgspec import msgpack

from dynemo.connection.buffer import MAX_UNREAD
from dynemo.connection.client import HostClient
from dynemo.connection.framed import FramedConnection
from dynemo.connection.server import StreamServer, StreamSink
from dynemo.connection.sink import ForwardingBuffer
from dynemo.messages.answer import Delta, Finish
from dynemo.messages.records import Load
from dynemo.messages.request import Request, Sampling
from dynemo.messages.wire import Failure, Hello
from dynemo.wire.frames import Frame, FrameKind
from dynemo.wire.versions import SPOKEN
from support.records import make_instance

REQUEST = msgpack.encode(
    Request(id="r", token_ids=[1, 2], prompt="ab", max_tokens=9, sampling=Sampling())
)
INSTANCE = make_instance()
STREAM = 77


class End:
    """One end of a socket pair, which records the frames that arrive."""

    def __init__(self) -> None:
        self.got: list[Frame] = []
        self.came = asyncio.Event()
        self.connection = FramedConnection(self._take, lambda _: None)

    def _take(self, frames: list[Frame]) -> None:
        self.got += frames
        self.came.set()

    async def first(self, *kinds: FrameKind) -> Frame:
        while not (found := [frame for frame in self.got if frame.kind in kinds]):
            self.came.clear()
            await self.came.wait()
        return found[0]

    def text(self) -> str:
        """Returns the text of all deltas, in the order of arrival."""
        bodies = [f.body for f in self.got if f.kind in (FrameKind.DATA, FrameKind.END)]
        return "".join(t for body in bodies for t in msgpack.decode(body, type=Delta).texts)


@dataclass
class Chain:
    """An engine host, a worker, and an ingress that has sent a request."""

    host: End
    asked: int  #: the host's number for the stream
    ingress: End
    reading: asyncio.Transport = field(repr=False)

    def say(self, *texts: str) -> None:
        for text in texts:
            self.host.connection.send(
                FrameKind.DATA, self.asked, msgpack.encode(Delta(texts=[text]))
            )

    def finish(self, text: str) -> None:
        last = Delta(texts=[text], finish=Finish("stop", 2, 9))
        self.host.connection.send(FrameKind.END, self.asked, msgpack.encode(last))


class _Source:
    def __init__(self, client: HostClient) -> None:
        self._client = client

    def answer(self, request: bytes, sink: StreamSink) -> AsyncGenerator[Delta, None]:
        return self._client.ask(request, ForwardingBuffer(sink))

    async def load(self) -> Load:
        return Load()


async def _connect(one: FramedConnection, other: FramedConnection) -> asyncio.Transport:
    """Connects two ends. Returns the transport of the other end."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    await loop.create_unix_connection(lambda: one, sock=ours)
    transport, _ = await loop.create_unix_connection(lambda: other, sock=theirs)
    return transport


@asynccontextmanager
async def joined() -> AsyncIterator[Chain]:
    client, host, ingress = HostClient(lambda: None), End(), End()
    outgoing = FramedConnection(lambda _: None, lambda _: None)
    await _connect(client.connection, host.connection)
    reading = await _connect(outgoing, ingress.connection)
    host.connection.send(FrameKind.HELLO, 0, msgpack.encode(Hello(SPOKEN.newest, INSTANCE)))
    await client.greeted
    async with asyncio.TaskGroup() as tasks:
        answers = StreamServer(outgoing, _Source(client), tasks)
        answers.start(STREAM, REQUEST)
        asked = (await host.first(FrameKind.REQUEST)).stream
        try:
            yield Chain(host, asked, ingress, reading)
        finally:
            answers.cancel_all()
            for connection in (client.connection, host.connection, outgoing, ingress.connection):
                connection.close()
            await asyncio.sleep(0.01)


def test_frames_are_forwarded_unchanged() -> None:
    async def body() -> None:
        async with joined() as chain:
            said = b"\x94\x91\xcc\x05\x90\xc0\x00"  # 5 in two bytes, which no encoder writes
            chain.host.connection.send(FrameKind.DATA, chain.asked, said)
            assert await chain.ingress.first(FrameKind.DATA) == Frame(FrameKind.DATA, STREAM, said)
            chain.finish("end")
            end = await chain.ingress.first(FrameKind.END)
            assert end.stream == STREAM
            assert msgpack.decode(end.body, type=Delta).finish == Finish("stop", 2, 9)

    asyncio.run(body())


def test_the_deltas_of_one_read_leave_in_one_frame() -> None:
    async def body() -> None:
        async with joined() as chain:
            chain.say("a", "b", "c")
            chain.finish("d")
            await chain.ingress.first(FrameKind.END)
            bodies = [msgpack.decode(frame.body, type=Delta).texts for frame in chain.ingress.got]
            assert bodies == [["a", "b", "c"], ["d"]]

    asyncio.run(body())


def test_a_full_sink_loses_nothing_and_keeps_the_order() -> None:
    async def body() -> None:
        async with joined() as chain:
            texts: list[str] = []

            async def say(count: int) -> None:
                some = [f"{len(texts) + number:04d}" + "x" * 1020 for number in range(count)]
                texts.extend(some)
                chain.say(*some)
                await asyncio.sleep(0)

            chain.reading.pause_reading()
            for _ in range(30):
                await say(30)
            chain.reading.resume_reading()
            while len(chain.ingress.text()) < 800 * 1024:  # the buffer empties, and fills again
                await say(4)
            chain.finish("end")
            await chain.ingress.first(FrameKind.END)
            assert chain.ingress.text() == "".join([*texts, "end"])

    asyncio.run(body())


def test_a_sink_that_stays_full_ends_the_stream_on_both_sides() -> None:
    async def body() -> None:
        async with joined() as chain:
            chain.reading.pause_reading()
            for _ in range(3 * MAX_UNREAD // 65536):
                chain.say("x" * 65536)
                await asyncio.sleep(0.001)
            assert (await chain.host.first(FrameKind.CANCEL)).stream == chain.asked
            chain.reading.resume_reading()
            error = await chain.ingress.first(FrameKind.ERROR)
            assert msgpack.decode(error.body, type=Failure).error == "SlowReader"

    asyncio.run(body())


def test_an_invalid_body_is_forwarded_to_the_ingress() -> None:
    async def body() -> None:
        async with joined() as chain:
            chain.host.connection.send(FrameKind.DATA, chain.asked, b"\xc1")
            assert (await chain.ingress.first(FrameKind.DATA)).body == b"\xc1"

    asyncio.run(body())


def test_no_frame_overtakes_a_held_one() -> None:
    async def body() -> None:
        connection = End().connection
        buffer = ForwardingBuffer(StreamSink(connection, STREAM))
        connection.pause_writing()
        buffer.data([msgpack.encode(Delta([1]))])
        connection.resume_writing()
        buffer.data([msgpack.encode(Delta([2]))])
        assert await buffer.take() == Delta([1, 2])
        assert buffer.sent == 0

    asyncio.run(body())
