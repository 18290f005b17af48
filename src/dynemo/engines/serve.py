"""Answers requests on one framed connection with one engine."""

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

from dynemo.answers import Answers, EngineSource, failure
from dynemo.engines.base import Adapter, Engine, Follower
from dynemo.errors import DynemoError
from dynemo.link import PROTOCOL, Link
from dynemo.messages import EngineSpec, Hello, Instance
from dynemo.wire.frames import Frame, Kind

_encode = msgpack.Encoder().encode


async def serve(spec: EngineSpec, sock: socket.socket) -> int:
    """Loads the engine, says HELLO, answers until the peer closes. Returns the exit code."""
    ended = asyncio.Event()
    answers: Answers | None = None

    def on_frames(frames: list[Frame]) -> None:
        for frame in frames:
            if answers is not None:
                _take(answers, frame)

    link = Link(on_frames, lambda _: ended.set())
    loop = asyncio.get_running_loop()
    _leave_to_runner(loop)
    await loop.create_connection(lambda: link, sock=sock)
    adapter: Adapter = import_module(f"dynemo.engines.{spec.engine}")
    async with AsyncExitStack() as stack:
        try:
            if spec.parallel.rank > 0:
                await _until(cast(Follower, adapter).follow(spec), ended)
                link.close()
                return 0
            engine = await stack.enter_async_context(adapter.open_engine(spec))
        except Exception as error:
            link.send(Kind.ERROR, 0, failure(error))
            link.close()
            await ended.wait()
            if not isinstance(error, DynemoError):
                raise
            return 1
        _leave_to_runner(loop)  # again: an engine may have taken them
        gc.freeze()  # what was loaded stays, and is not looked through for what could go
        async with asyncio.TaskGroup() as tasks:
            answers = Answers(link, EngineSource(engine), tasks)
            link.send(Kind.HELLO, 0, _encode(Hello(PROTOCOL, _describe(spec, engine))))
            await ended.wait()
            answers.cancel_all()
    return 0


def _leave_to_runner(loop: asyncio.AbstractEventLoop) -> None:
    """What asks to end. A service manager tells all processes of a service, the runner too, which
    lets streams end first and then lets go of us. Not ignored, which an engine's own processes
    would inherit."""
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: None)


async def _until(work: Coroutine[None, None, None], ended: asyncio.Event) -> None:
    """Runs `work` to its end, or cancels it at the event."""
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


def _take(answers: Answers, frame: Frame) -> None:
    if frame.kind == Kind.REQUEST:
        answers.start(frame.stream, frame.body)
    elif frame.kind == Kind.CANCEL:
        answers.cancel(frame.stream)
    elif frame.kind == Kind.PING:
        answers.pong()


def _describe(spec: EngineSpec, engine: Engine) -> Instance:
    return Instance(
        id=spec.instance,
        engine=os.path.basename(spec.argument) if spec.engine == "own" else spec.engine,
        version=engine.version,
        device=engine.device,
        context_length=engine.context_length,
        slots=engine.slots,
        capabilities=engine.capabilities,
    )
