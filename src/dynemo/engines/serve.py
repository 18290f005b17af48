"""Answers requests on one framed connection with one engine: the answering side of the protocol."""

import asyncio
import signal
import socket
from contextlib import AsyncExitStack, aclosing
from importlib import import_module
from uuid import uuid4

from msgspec import msgpack

from dynemo.engines.base import Adapter, Engine
from dynemo.errors import DynemoError, EngineError
from dynemo.link import PROTOCOL, Link
from dynemo.messages import EngineSpec, Failure, Hello, Instance, Request
from dynemo.wire.frames import Frame, Kind

_encode = msgpack.Encoder().encode
_decode_request = msgpack.Decoder(Request).decode


def failure(error: BaseException) -> bytes:
    """An error as the other process will raise it. What is not ours becomes an EngineError."""
    if not isinstance(error, DynemoError):
        error = EngineError(f"{type(error).__name__}: {error}")
    return _encode(Failure(type(error).__name__, str(error), error.param))


async def serve(spec: EngineSpec, sock: socket.socket) -> int:
    """Loads the engine, says HELLO, answers until the peer closes. Returns the exit code."""
    ended = asyncio.Event()
    answers: Answers | None = None

    def on_frames(frames: list[Frame]) -> None:
        if answers is not None:
            answers.on_frames(frames)

    link = Link(on_frames, lambda _: ended.set())
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    await loop.create_connection(lambda: link, sock=sock)
    adapter: Adapter = import_module(f"dynemo.engines.{spec.engine}")
    async with AsyncExitStack() as stack:
        try:
            engine = await stack.enter_async_context(adapter.open_engine(spec))
        except Exception as error:
            link.send(Kind.ERROR, 0, failure(error))
            link.close()
            await ended.wait()
            if not isinstance(error, DynemoError):
                raise
            return 1
        async with asyncio.TaskGroup() as tasks:
            answers = Answers(link, engine, tasks)
            link.send(Kind.HELLO, 0, _encode(Hello(PROTOCOL, _describe(spec, engine))))
            await ended.wait()
            answers.cancel_all()
    return 0


def _describe(spec: EngineSpec, engine: Engine) -> Instance:
    return Instance(
        id=uuid4().hex,
        engine=spec.engine,
        version=engine.version,
        device=engine.device,
        context_length=engine.context_length,
        slots=engine.slots,
        capabilities=engine.capabilities,
    )


class Answers:
    """The streams that are being answered on one link, a task each, owned by `tasks`."""

    def __init__(self, link: Link, engine: Engine, tasks: asyncio.TaskGroup) -> None:
        self._link = link
        self._engine = engine
        self._tasks = tasks
        self._running: dict[int, asyncio.Task[None]] = {}

    def on_frames(self, frames: list[Frame]) -> None:
        for kind, stream, body in frames:
            if kind == Kind.REQUEST:
                self._start(stream, body)
            elif kind == Kind.CANCEL:
                if stream in self._running:
                    self._running[stream].cancel()
            elif kind == Kind.PING:
                self._tasks.create_task(self._pong())

    def _start(self, stream: int, body: bytes) -> None:
        task = self._tasks.create_task(self._answer(stream, body))
        self._running[stream] = task
        task.add_done_callback(lambda _: self._running.pop(stream))

    def cancel_all(self) -> None:
        for task in self._running.values():
            task.cancel()

    async def _answer(self, stream: int, body: bytes) -> None:
        link = self._link
        try:
            async with aclosing(self._engine.generate(_decode_request(body))) as deltas:
                async for delta in deltas:
                    kind = Kind.DATA if delta.finish is None else Kind.END
                    link.send(kind, stream, _encode(delta))
                    if not link.is_writable:
                        await link.drain()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            link.send(Kind.ERROR, stream, failure(error))

    async def _pong(self) -> None:
        self._link.send(Kind.PONG, 0, _encode(await self._engine.load()))
