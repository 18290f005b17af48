"""Plays the worker's part of a recording to an ingress of this release.

It sends every recorded frame and reply, but with this ingress's stream numbers, tokens and keys. If
the ingress sent a frame in the recording, it waits for that frame, or makes the ingress send it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from msgspec import msgpack, structs

from support import protocol_1
from support.old_connection import OldConnection
from support.recording import TO_WORKER, Event, Recording, request_of, steps

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg


class IngressDriver(Protocol):
    """Controls the ingress."""

    def ask(self, event: Event) -> None:
        """Sends the request of a recorded envelope."""
        ...

    def ask_load(self) -> None: ...

    async def cancel(self, stream: int) -> None:
        """Cancels the stream with this recorded number, after all sent frames have arrived."""
        ...

    async def before_close(self) -> None:
        """Is called before the worker closes its connection."""
        ...


class OldWorker:
    """An old worker. `requests` are the ingress's requests, read with the code of protocol 1."""

    def __init__(self, recording: Recording, driver: IngressDriver) -> None:
        self.recording = recording
        self.requests: dict[int, protocol_1.Request] = {}
        self.loopback = ""  #: its own address, for requests over TCP
        self._driver = driver
        self._streams: dict[int, int] = {}  # the ingress's number of each recorded stream
        self._tokens: dict[int, bytes] = {}
        self._key = b""
        self._address = ""
        self._connection: OldConnection | None = None
        self._connections: list[OldConnection] = []
        self._accepted: asyncio.Future[OldConnection] = asyncio.get_running_loop().create_future()
        self._messages: asyncio.Queue[Msg] = asyncio.Queue()
        self._unanswered: dict[str | None, Msg] = {}

    async def play(self) -> None:
        for event, following in steps(self.recording):
            await self._step(event, following)

    async def _step(self, event: Event, following: list[Event]) -> None:
        match event.event:
            case "message" if event.direction == TO_WORKER:
                await self._on_message(event, following)
            case "message" if (message := self._unanswered.get(event.subject)) is not None:
                await message.respond(event.body)
            case "dialled" if event.by == "worker":
                self._connection = await OldConnection.dial(self._address, is_worker=True)
                self._connections.append(self._connection)
            case "dialled":
                self._driver.ask(next(e for e in following if e.envelope is not None))
                async with asyncio.timeout(10):
                    self._connection = await self._accepted
                self._connections.append(self._connection)
            case "closed":
                await self._driver.before_close()
                await self.connection.close()
            case "frame" if event.direction == TO_WORKER:
                await self._on_frame(event)
            case "frame":
                self._send(event)

    @property
    def connection(self) -> OldConnection:
        assert self._connection is not None
        return self._connection

    async def _on_message(self, event: Event, following: list[Event]) -> None:
        if event.body == b"\xc1":
            return  # an ingress of this release never sends this body
        if not event.body:
            self._driver.ask_load()
        else:
            self._driver.ask(event)
        async with asyncio.timeout(10):
            message = await self._messages.get()
        assert message.subject == event.subject
        self._unanswered[event.reply] = message
        assert bool(message.data) == bool(event.body)
        if message.data:
            await self._on_envelope(event, message.data, following)

    async def _on_envelope(self, event: Event, body: bytes, following: list[Event]) -> None:
        recorded, envelope = event.envelope, msgpack.decode(body, type=protocol_1.Envelope)
        assert recorded is not None
        assert bool(envelope.request) == bool(recorded.request)
        self._streams[recorded.stream] = envelope.stream
        self._tokens[recorded.stream] = envelope.token
        self._key, self._address = envelope.key, envelope.loopback
        if envelope.request:
            self._keep(recorded.stream, envelope.request)
        is_given_up = any(
            e.direction == TO_WORKER and e.kind == protocol_1.Kind.ERROR
            for e in following
            if e.stream == recorded.stream
        )
        if is_given_up:
            await self._driver.cancel(recorded.stream)

    def _keep(self, stream: int, request: bytes) -> None:
        self.requests[stream] = msgpack.decode(request, type=protocol_1.Request)

    async def _on_frame(self, event: Event) -> None:
        match protocol_1.Kind(event.kind):
            case protocol_1.Kind.PING | protocol_1.Kind.PONG:
                return  # heartbeats depend on the time
            case protocol_1.Kind.HELLO:
                frame = await self.connection.next(event.kind, 0)
                greeting = msgpack.decode(frame.body, type=protocol_1.Greeting)
                recorded = msgpack.decode(event.body, type=protocol_1.Greeting)
                assert len(frame.body) <= protocol_1.MAX_UNGREETED
                instance = self.recording.instances[0]
                protocol_1.check_greeting(greeting, key=recorded.key, instance=instance)
                self._key = greeting.answer_key
            case protocol_1.Kind.OPEN:
                if event.envelope is None:
                    return
                self._driver.ask(event)
                recorded_stream = event.envelope.stream
                stream = max(self._streams.values(), default=0) + 1
                frame = await self.connection.next(event.kind, stream)
                await self._on_envelope(event, frame.body, [])
                assert self._streams[recorded_stream] == stream
            case kind:
                if kind is protocol_1.Kind.CANCEL:
                    await self._driver.cancel(event.stream)
                frame = await self.connection.next(kind, self._streams[event.stream])
                if kind is protocol_1.Kind.REQUEST:
                    self._keep(event.stream, frame.body)
                elif kind is protocol_1.Kind.ERROR:
                    assert isinstance(protocol_1.raised(frame.body), protocol_1.WireError)

    def _send(self, event: Event) -> None:
        stream, body = self._streams.get(event.stream, event.stream), event.body
        match protocol_1.Kind(event.kind):
            case protocol_1.Kind.HELLO:
                greeting = msgpack.decode(body, type=protocol_1.Greeting)
                body = msgpack.encode(structs.replace(greeting, key=self._key))
            case protocol_1.Kind.OPEN:
                body = self._tokens[event.stream]
            case protocol_1.Kind.PONG:
                self.connection.load = body
        self.connection.send(event.kind, stream, body)

    @asynccontextmanager
    async def subscribed(self, url: str) -> AsyncIterator[None]:
        """Accepts requests over NATS."""
        client = await _client(url)

        async def on_message(message: "Msg") -> None:
            self._messages.put_nowait(message)

        for name in self.recording.instances:
            await client.subscribe(f"dynemo.dynemo.pool.generate.{name}", cb=on_message)
        await client.flush()
        try:
            yield
        finally:
            await self._close()
            await client.close()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Accepts requests over TCP."""

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._accepted.set_result(OldConnection(reader, writer, is_worker=True))

        async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
            self.loopback = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            try:
                yield
            finally:
                await self._close()

    async def _close(self) -> None:
        for connection in self._connections:
            await connection.close()


async def _client(url: str) -> "Client":
    from nats.aio.client import Client

    client = Client()
    await client.connect(url)
    return client


def recorded_request(recording: Recording, event: Event) -> protocol_1.Request:
    return msgpack.decode(request_of(recording, event), type=protocol_1.Request)
