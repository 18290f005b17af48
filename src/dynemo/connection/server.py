"""The answering side of a framed connection: many streams on one link, a task each.

An engine host and a worker both answer with it. A stream leaves the table when it is cancelled or
handed back, so that what its task still does is not heard any more.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol

from msgspec import msgpack
from msgspec.structs import asdict

from dynemo.connection.framed import FramedConnection
from dynemo.errors import DynemoError, EngineError
from dynemo.messages.answer import Delta
from dynemo.messages.records import Load
from dynemo.messages.request import Request
from dynemo.messages.wire import Failure, FinalDelta
from dynemo.wire.frames import FrameKind

_encode = msgpack.Encoder().encode
_decode_request = msgpack.Decoder(Request).decode


class StreamSink:
    """Where one answer goes: a stream on a link."""

    __slots__ = ("link", "stream")

    def __init__(self, link: FramedConnection, stream: int) -> None:
        self.link = link
        self.stream = stream


class RequestHandler(Protocol):
    """What answers: an engine inside its host, or a worker's instance."""

    def answer(self, request: bytes, outlet: StreamSink) -> AsyncGenerator[Delta, None]:
        """The deltas that answer an encoded Request; see `engines.base.Engine.generate`.

        Between two of them it may send on the outlet itself, in order.
        """
        ...

    async def load(self) -> Load:
        """What it is busy with now."""
        ...


class GeneratingEngine(Protocol):
    """An engine, as far as it is asked here."""

    def generate(self, request: Request) -> AsyncGenerator[Delta, None]: ...

    async def load(self) -> Load: ...


class EngineHandler:
    """The `RequestHandler` that an engine is."""

    def __init__(self, engine: GeneratingEngine) -> None:
        self._engine = engine
        self.load = engine.load

    def answer(self, request: bytes, outlet: StreamSink) -> AsyncGenerator[Delta, None]:  # noqa: ARG002
        return self._engine.generate(_decode_request(request))


def failure(error: BaseException) -> bytes:
    """An error as the other process will raise it. What is not ours becomes an EngineError."""
    if not isinstance(error, DynemoError):
        error = EngineError(f"{type(error).__name__}: {error}")
    return _encode(Failure(type(error).__name__, str(error), error.param, error.trace))


class StreamServer:
    """The streams that are being answered on one link; `tasks` owns their tasks.

    `load_at_end` gives the load that goes with each END, where there is one to tell at once.
    """

    def __init__(
        self,
        link: FramedConnection,
        source: RequestHandler,
        tasks: asyncio.TaskGroup,
        load_at_end: Callable[[], Load] | None = None,
    ) -> None:
        self._link = link
        self._source = source
        self._tasks = tasks
        self._load_at_end = load_at_end
        self._running: dict[int, asyncio.Task[None]] = {}
        self._load = Load()
        self._asking: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._running)

    def __contains__(self, stream: int) -> bool:
        return stream in self._running

    @property
    def tasks(self) -> "list[asyncio.Task[None]]":
        """Of the streams that run."""
        return list(self._running.values())

    def start(self, stream: int, request: bytes) -> None:
        """Answers an encoded Request on `stream`."""
        task = self._tasks.create_task(self._answer(stream, request))
        self._running[stream] = task
        task.add_done_callback(lambda task: self._done(stream, task))

    def cancel(self, stream: int) -> None:
        """Ends a stream without a word. One that has ended is no error."""
        task = self._running.pop(stream, None)
        if task is not None:
            task.cancel()

    def cancel_all(self) -> None:
        for stream in list(self._running):
            self.cancel(stream)

    def hand_back(self) -> int:
        """Tells the asking side to ask another for what is left of every stream. How many."""
        streams = list(self._running)
        for stream in streams:
            self.cancel(stream)
            self._link.send(FrameKind.GOAWAY, stream)
        return len(streams)

    def pong(self) -> None:
        """Answers a PING with the load as last known, and asks for it anew, once at a time.

        At once, because a PONG says that this process lives; an engine may take long to say what
        it is busy with. Once it has, another PONG brings the news.
        """
        if self._load_at_end is not None:
            self._load = self._load_at_end()
        self._link.send(FrameKind.PONG, 0, _encode(self._load))
        if self._load_at_end is None and (self._asking is None or self._asking.done()):
            self._asking = self._tasks.create_task(self._ask_load())

    def _done(self, stream: int, task: asyncio.Task[None]) -> None:
        if self._running.get(stream) is not task:
            return
        del self._running[stream]
        if task.cancelled():  # by the engine: nobody here has asked for it
            self._link.send(
                FrameKind.ERROR, stream, failure(EngineError("The engine cancelled it."))
            )

    async def _answer(self, stream: int, body: bytes) -> None:
        link = self._link
        try:
            async with aclosing(self._source.answer(body, StreamSink(link, stream))) as deltas:
                async for delta in deltas:
                    if delta.finish is not None:
                        link.send(FrameKind.END, stream, self._last(delta))
                        return
                    link.send(FrameKind.DATA, stream, _encode(delta))
                    if not link.is_writable:
                        await link.drain()
            raise EngineError("The engine ended the answer without a finish.")
        except Exception as error:
            link.send(FrameKind.ERROR, stream, failure(error))

    def _last(self, delta: Delta) -> bytes:
        if self._load_at_end is None:
            return _encode(delta)
        return _encode(FinalDelta(**{**asdict(delta), "load": self._load_at_end()}))

    async def _ask_load(self) -> None:
        with contextlib.suppress(Exception):  # the engine is in trouble; its streams tell
            load = await self._source.load()
            if load != self._load:
                self._load = load
                self._link.send(FrameKind.PONG, 0, _encode(load))
