"""The server of a framed connection: many streams on one connection, a task for each.

An engine host and a worker both use it. A stream leaves the table when it is cancelled or handed
back; what its task still sends is then dropped.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol

from msgspec import ValidationError, msgpack

from dynemo.connection.framed import FramedConnection
from dynemo.errors import EngineError, UnsupportedField
from dynemo.foreign import msgpack_decoder
from dynemo.messages.answer import Delta
from dynemo.messages.records import Load, LoadReport
from dynemo.messages.request import Request
from dynemo.wire.deltas import encode_final
from dynemo.wire.failures import encode_error
from dynemo.wire.frames import FrameKind
from dynemo.wire.state import StreamState

_encode = msgpack.Encoder().encode
_decode_request = msgpack_decoder(Request)


class StreamSink:
    """The target of one answer: a stream of a connection."""

    __slots__ = ("connection", "stream")

    def __init__(self, connection: FramedConnection, stream: int) -> None:
        self.connection = connection
        self.stream = stream


class RequestHandler(Protocol):
    """The port behind a server: an engine inside its host, or the instance of a worker."""

    def answer(self, request: bytes, sink: StreamSink) -> AsyncGenerator[Delta, None]:
        """The deltas that answer an encoded Request; see `engines.base.Engine.generate`.

        Between two of them it may itself send to the sink, in order.
        """
        ...

    async def load(self) -> Load:
        """The work that it is busy with now."""
        ...


class GeneratingEngine(Protocol):
    """The part of an engine that a server uses."""

    def generate(self, request: Request) -> AsyncGenerator[Delta, None]: ...

    async def load(self) -> Load: ...


class EngineHandler:
    """Makes a `RequestHandler` of an engine."""

    def __init__(self, engine: GeneratingEngine) -> None:
        self._engine = engine
        self.load = engine.load

    def answer(self, request: bytes, sink: StreamSink) -> AsyncGenerator[Delta, None]:  # noqa: ARG002
        """Raises UnsupportedField for a request of a later release that needs more than this."""
        try:
            return self._engine.generate(_decode_request(request))
        except ValidationError as error:
            raise UnsupportedField(
                f"This worker's release of dynemo-run does not know a value of the request "
                f"({error}). Upgrade the worker."
            ) from error


class StreamServer:
    """The streams that a server answers on one connection. `tasks` owns their tasks.

    `load_at_end` gives the load that each END carries, if it is known without asking; `report`
    makes a PONG of it.
    """

    def __init__(
        self,
        connection: FramedConnection,
        handler: RequestHandler,
        tasks: asyncio.TaskGroup,
        load_at_end: Callable[[], Load] | None = None,
        report: "Callable[[StreamServer], LoadReport] | None" = None,
    ) -> None:
        self._connection = connection
        self._handler = handler
        self._tasks = tasks
        self._load_at_end = load_at_end
        self._report = report
        self._running: dict[int, asyncio.Task[None]] = {}
        self.elsewhere = 0  #: streams of other connections, in the last report to this client
        self._load = Load()
        self._load_task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._running)

    def __contains__(self, stream: int) -> bool:
        return stream in self._running

    @property
    def tasks(self) -> "list[asyncio.Task[None]]":
        """The tasks of the running streams."""
        return list(self._running.values())

    def state_of(self, stream: int) -> StreamState:
        return StreamState.OPEN if stream in self._running else StreamState.CLOSED

    def start(self, stream: int, request: bytes) -> None:
        """Answers an encoded Request on `stream`, which must not run yet."""
        task = self._tasks.create_task(self._answer(stream, request))
        self._running[stream] = task
        task.add_done_callback(lambda task: self._done(stream, task))

    def cancel(self, stream: int) -> None:
        """Cancels a stream and sends nothing. Does nothing if it has ended."""
        task = self._running.pop(stream, None)
        if task is not None:
            task.cancel()

    def cancel_all(self) -> None:
        for stream in list(self._running):
            self.cancel(stream)

    def hand_back(self) -> int:
        """Cancels every stream and asks the client to get the rest elsewhere. Returns how many."""
        streams = list(self._running)
        for stream in streams:
            self.cancel(stream)
            self._connection.send(FrameKind.GOAWAY, stream)
        return len(streams)

    def pong(self) -> None:
        """Answers a PING with the last known load, then asks for the load, once at a time.

        It answers at once, since a PONG says that this process lives, and an engine may take long
        to give its load. Another PONG then carries the new load.
        """
        if self._report is not None:
            self._load = self._report(self)
        elif self._load_at_end is not None:
            self._load = self._load_at_end()
        self._connection.send(FrameKind.PONG, 0, _encode(self._load))
        is_asking = self._load_task is not None and not self._load_task.done()
        if self._load_at_end is None and not is_asking:
            self._load_task = self._tasks.create_task(self._send_load())

    def _done(self, stream: int, task: asyncio.Task[None]) -> None:
        if self._running.get(stream) is not task:
            return
        del self._running[stream]
        if task.cancelled():  # by the engine: nobody here has asked for it
            error = EngineError("The engine cancelled it.")
            self._connection.send(FrameKind.ERROR, stream, encode_error(error))

    async def _answer(self, stream: int, body: bytes) -> None:
        connection = self._connection
        try:
            sink = StreamSink(connection, stream)
            async with aclosing(self._handler.answer(body, sink)) as deltas:
                async for delta in deltas:
                    if delta.finish is not None:
                        load = self._load_at_end() if self._load_at_end is not None else None
                        connection.send(FrameKind.END, stream, encode_final(delta, load))
                        return
                    connection.send(FrameKind.DATA, stream, _encode(delta))
                    if not connection.is_writable:
                        await connection.drain()
            raise EngineError("The engine ended the answer without a finish.")
        except Exception as error:
            connection.send(FrameKind.ERROR, stream, encode_error(error))

    async def _send_load(self) -> None:
        with contextlib.suppress(Exception):  # the engine is in trouble; its streams report it
            load = await self._handler.load()
            if load != self._load:
                self._load = load
                self._connection.send(FrameKind.PONG, 0, _encode(load))
