"""Plays the ingress's part of a recording to a worker of this release.

It sends every recorded request and frame, with its own address in the envelopes. If the worker
sent a frame in the recording, it makes the worker's engine do the same. It reads the worker's
frames with the code of protocol 1.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import convert, msgpack, structs

from dynemo.connection.addresses import host_id
from support import protocol_1
from support.old_connection import OldConnection
from support.recording import TO_WORKER, Answer, Event, Recording, steps

if TYPE_CHECKING:
    from nats.aio.client import Client

#: The key of an envelope whose address has no listener. That address is not replaced.
_NOBODY = bytes(32)

Kind = protocol_1.Kind


class WorkerDriver(Protocol):
    """Controls the worker."""

    def expect(self, refusal: protocol_1.DynemoError | None) -> None:
        """Sets whether the worker takes the next request or refuses it with this error."""
        ...

    def give(self, stream: int, item: "protocol_1.Delta | protocol_1.DynemoError") -> None:
        """Makes the worker's engine send a delta or an error on the stream."""
        ...

    def set_load(self, load: protocol_1.Load) -> None: ...

    def drain(self, instance: str) -> None: ...

    def hand_back(self, instance: str) -> None:
        """Ends the grace period of a drain: the worker hands its streams back."""
        ...

    async def close(self, instance: str) -> None: ...


class OldIngress:
    """An old ingress. `answers` are its answers by stream; `load` is the load that it asked for."""

    def __init__(self, recording: Recording, driver: WorkerDriver) -> None:
        self.recording = recording
        self.answers: dict[int, Answer] = {}
        self.load: protocol_1.Load | None = None
        self._driver = driver
        self._address = ""
        self._tokens: dict[int, bytes] = {}
        self._instances: dict[int, str] = {}  # by the number of the connection
        self._accepted: asyncio.Queue[OldConnection] = asyncio.Queue()
        self._connections: dict[int, OldConnection] = {}
        self._replies: dict[str | None, asyncio.Task[bytes]] = {}
        self._streams: dict[str | None, int] = {}  # by the recorded subject of the reply
        self._client: Client | None = None

    async def play(self) -> None:
        for event, following in steps(self.recording):
            if event.event == "message":
                await self._on_message(event, following)
            elif event.event == "dialled" and event.by == "worker":
                async with asyncio.timeout(10):
                    self._connections[event.connection] = await self._accepted.get()
            elif event.event == "closed":
                await self._driver.close(self._instances[event.connection])
                await self._connections[event.connection].wait_closed()
            elif event.event == "frame":
                connection = self._connections[event.connection]
                if event.direction == TO_WORKER:
                    self._send(connection, event, following)
                else:
                    await self._receive(connection, event)

    async def _on_message(self, event: Event, following: list[Event]) -> None:
        if event.direction == TO_WORKER:
            self._ask(event, following)
            return
        reply = await self._replies[event.subject]
        stream = self._streams.get(event.subject)
        if stream is None and event.body[0] != 0x84:  # a load, because it is not a map
            self.load = protocol_1.Load(*convert(msgpack.decode(reply), list[Any]))
        elif event.body:
            _check_error(reply, event.body)
            if stream is not None:
                self.answers[stream].fail(protocol_1.raised(event.body))
        else:
            assert reply == b""

    def _ask(self, event: Event, following: list[Event]) -> None:
        body = event.body
        if (envelope := event.envelope) is not None:
            reply = next(e for e in following if e.subject == event.reply)
            self._driver.expect(protocol_1.raised(reply.body) if reply.body else None)
            body = self._begin(event, envelope)
        elif not body:
            reply = next(e for e in following if e.subject == event.reply)
            self._driver.set_load(msgpack.decode(reply.body, type=protocol_1.Load))
        self._replies[event.reply] = asyncio.create_task(self._request(event.subject, body))

    def _begin(self, event: Event, envelope: protocol_1.Envelope) -> bytes:
        self.answers[envelope.stream] = Answer()
        self._streams[event.reply] = envelope.stream
        self._tokens[envelope.stream] = envelope.token
        loopback = envelope.loopback if envelope.key == _NOBODY else self._address
        here = {"addresses": [], "loopback": loopback, "host": host_id()}
        return msgpack.encode(structs.replace(envelope, **here))

    async def _request(self, subject: str, body: bytes) -> bytes:
        assert self._client is not None
        return (await self._client.request(subject, body, timeout=5)).data

    def _send(self, connection: OldConnection, event: Event, following: list[Event]) -> None:
        if (envelope := event.envelope) is not None:
            self._begin(event, envelope)
            replies = (e for e in following if e.stream == event.stream)
            reply = next(e for e in replies if e.kind in (Kind.OPEN, Kind.ERROR))
            is_error = reply.kind == Kind.ERROR
            self._driver.expect(protocol_1.raised(reply.body) if is_error else None)
        connection.send(event.kind, event.stream, event.body)

    async def _receive(self, connection: OldConnection, event: Event) -> None:
        kind, stream = Kind(event.kind), event.stream
        if kind in (Kind.PING, Kind.PONG):
            return  # heartbeats depend on the time
        is_of_engine = stream in self.answers and stream in self._tokens
        read = protocol_1.read(kind, event.body, at="ingress")
        if kind is Kind.GOAWAY:
            act = self._driver.hand_back if stream else self._driver.drain
            act(self._instances[event.connection])
        elif kind in (Kind.DATA, Kind.END) and is_of_engine:
            if kind is Kind.END:
                self._driver.set_load(read.load)
            self._driver.give(stream, read)
        elif kind is Kind.ERROR and self.recording.request_plane == "nats":
            self._driver.give(stream, protocol_1.raised(event.body))
        frame = await connection.next(kind, stream)
        self._check(connection, event, frame, read)

    def _check(
        self, connection: OldConnection, event: Event, frame: protocol_1.Frame, read: Any
    ) -> None:
        answer = self.answers.get(event.stream)
        match Kind(frame.kind):
            case Kind.HELLO:
                greeting = msgpack.decode(frame.body, type=protocol_1.Greeting)
                assert len(frame.body) <= protocol_1.MAX_UNGREETED
                self._instances[event.connection] = greeting.instance
                protocol_1.check_greeting(greeting, key=read.key, instance=read.instance)
                connection.send(Kind.PING, 0)
            case Kind.OPEN:
                assert frame.body == self._tokens[event.stream]
            case Kind.GOAWAY if answer is not None:
                answer.fail(protocol_1.EngineLost("handed back"))
            case Kind.ERROR:
                _check_error(frame.body, event.body)
                if answer is not None:
                    answer.fail(protocol_1.raised(frame.body))
            case Kind.DATA | Kind.END:
                got = protocol_1.read(frame.kind, frame.body, at="ingress")
                assert got == read
                assert answer is not None
                answer.take(got)

    @asynccontextmanager
    async def asking(self, url: str) -> AsyncIterator[None]:
        """Sends requests over NATS, and listens for the worker."""
        from nats.aio.client import Client

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._accepted.put_nowait(OldConnection(reader, writer, is_worker=False))

        self._client = Client()
        await self._client.connect(url)
        async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
            self._address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            try:
                yield
            finally:
                await self._close()
                await self._client.close()

    @asynccontextmanager
    async def dialling(self, address: str, key: str) -> AsyncIterator[None]:
        """Dials the worker, with the key from the worker's record."""
        hello = self.recording.events[1]
        greeting = msgpack.decode(hello.body, type=protocol_1.Greeting)
        ours = structs.replace(greeting, key=bytes.fromhex(key))
        self.recording.events[1] = structs.replace(hello, body=msgpack.encode(ours))
        self._connections[1] = await OldConnection.dial(address, is_worker=False)
        try:
            yield
        finally:
            await self._close()

    async def _close(self) -> None:
        for connection in self._connections.values():
            await connection.close()


def _check_error(got: bytes, recorded: bytes) -> None:
    ours, theirs = protocol_1.raised(got), protocol_1.raised(recorded)
    assert type(ours) is type(theirs)
    assert ours.param == theirs.param
