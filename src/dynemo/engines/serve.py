"""Serves requests on one framed connection with one engine."""

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from importlib import import_module
from typing import cast

from msgspec import msgpack

from dynemo.connection.framed import FramedConnection
from dynemo.connection.server import EngineHandler, StreamServer
from dynemo.engines.base import Adapter, Engine, Follower
from dynemo.errors import DynemoError
from dynemo.messages.records import Capabilities, Instance, Load
from dynemo.messages.spec import EngineSpec
from dynemo.messages.wire import Hello
from dynemo.wire import versions
from dynemo.wire.failures import encode_error
from dynemo.wire.frames import Frame, FrameKind
from dynemo.wire.state import ConnectionState, Role, connection_after, stream_after

_encode = msgpack.Encoder().encode


async def serve(spec: EngineSpec, sock: socket.socket) -> int:
    """Loads the engine, sends HELLO, and answers until the peer closes. Returns the exit code."""
    ended = asyncio.Event()
    server: StreamServer | None = None

    def on_frames(frames: list[Frame]) -> None:
        for frame in frames:
            if server is not None:
                _handle_frame(server, frame)
            elif frame.kind == FrameKind.PING:  # to a rank that follows another
                connection.send(FrameKind.PONG, 0, _encode(Load()))

    connection = FramedConnection(on_frames, lambda _: ended.set())
    loop = asyncio.get_running_loop()
    _ignore_termination(loop)
    await loop.create_connection(lambda: connection, sock=sock)
    adapter: Adapter = import_module(f"dynemo.engines.{spec.engine}.adapter")
    async with AsyncExitStack() as stack:
        try:
            if spec.parallel.rank > 0:
                return await _follow(cast(Follower, adapter), spec, connection, ended)
            engine = await stack.enter_async_context(adapter.open_engine(spec))
        except Exception as error:
            connection.send(FrameKind.ERROR, 0, encode_error(error))
            connection.close()
            await ended.wait()
            if not isinstance(error, DynemoError):
                raise
            return 1
        _ignore_termination(loop)  # again: an engine may have replaced the handlers
        gc.freeze()  # loaded objects stay, so the garbage collector need not visit them
        async with asyncio.TaskGroup() as tasks:
            server = StreamServer(connection, EngineHandler(engine), tasks)
            _greet(connection, _instance(spec, engine))
            await ended.wait()
            server.cancel_all()
    return 0


def _greet(connection: FramedConnection, instance: Instance) -> None:
    hello = Hello(versions.SPOKEN.newest, instance)
    connection.send(FrameKind.HELLO, 0, _encode(hello))


async def _follow(
    adapter: Follower, spec: EngineSpec, connection: FramedConnection, ended: asyncio.Event
) -> int:
    """Runs a rank above 0. Returns the exit code.

    It sends HELLO once it has joined the others, although it gets no requests. From then on its end
    counts as a failure at run time, no longer as a failed start.
    """
    has_joined, code = False, 0

    def on_joined() -> None:
        nonlocal has_joined
        has_joined = True
        _greet(connection, _follower_instance(spec))

    try:
        await _run_until(adapter.follow(spec, on_joined), ended)
    except DynemoError as error:
        if not has_joined:
            raise
        # Printed like an exception: the runner reports the last one.
        print(f"EngineError: {error}", flush=True)
        code = 1
    connection.close()
    return code


def _ignore_termination(loop: asyncio.AbstractEventLoop) -> None:
    """Ignores SIGINT, SIGTERM and SIGHUP.

    A service manager signals all processes of a service. The runner first finishes its streams, and
    then closes the connection to this process. A handler is used because SIG_IGN would be inherited
    by the engine's own processes.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, lambda: None)


async def _run_until(work: Coroutine[None, None, None], ended: asyncio.Event) -> None:
    """Runs `work` to its end, or cancels it when `ended` is set."""
    task = asyncio.ensure_future(work)
    waiting = asyncio.ensure_future(ended.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
    if not task.cancelled():
        task.result()


def _handle_frame(server: StreamServer, frame: Frame) -> None:
    """Acts on a frame of the runner. Raises WireError."""
    if not frame.stream:
        connection_after(Role.HOST, ConnectionState.OPEN, frame)
        if frame.kind == FrameKind.PING:
            server.pong()
        return
    state = server.state_of(frame.stream)
    stream_after(Role.HOST, ConnectionState.OPEN, state, frame)
    if frame.kind == FrameKind.REQUEST:
        server.start(frame.stream, frame.body)
    elif frame.kind == FrameKind.CANCEL:
        server.cancel(frame.stream)


def _instance(spec: EngineSpec, engine: Engine) -> Instance:
    return Instance(
        id=spec.instance,
        engine=os.path.basename(spec.argument) if spec.engine == "own" else spec.engine,
        version=engine.version,
        device=engine.device,
        context_length=engine.context_length,
        slots=engine.slots,
        capabilities=engine.capabilities,
    )


def _follower_instance(spec: EngineSpec) -> Instance:
    return Instance(
        id=spec.instance,
        engine=spec.engine,
        version="",
        device="",
        context_length=0,
        slots=0,
        capabilities=Capabilities(),
    )
