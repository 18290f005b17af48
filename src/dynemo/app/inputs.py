"""Runs an input until it ends: the HTTP server, or one of the terminal's three."""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dynemo.app.settings.modes import RunInput
from dynemo.app.settings.options import Config
from dynemo.interrupt import hangups
from dynemo.messages.ask import Ask
from dynemo.serving.pipeline import Pipeline

if TYPE_CHECKING:
    from dynemo.http.bound_server import BoundServer

#: After so many seconds of stopping, a line says how to stop at once.
_HINT_SECONDS = 1.0


async def serve_http(
    pipeline: Pipeline,
    server: "BoundServer",
    grace: float,
    ready: Coroutine[None, None, None],
) -> int:
    """Serves until a signal, with status 503 until there is an instance. Returns the exit code.

    `ready` runs meanwhile; if it raises, because the engine did not load, so does this.
    """
    from dynemo.http.app import build_app
    from dynemo.http.server import serve
    from dynemo.http.status import status_port

    stop = stop_on_signals()
    waiting = asyncio.ensure_future(ready)
    waiting.add_done_callback(lambda task: stop.set() if _failed(task) else None)
    try:
        app, metrics = build_app(pipeline, server)
        async with AsyncExitStack() as ports:
            if server.metrics is not None and metrics is not None:
                await ports.enter_async_context(status_port(metrics, server.metrics, stop))
            await serve(app, listener=server.listener, grace=grace, stop=stop, tls=server.tls)
    finally:
        waiting.cancel()
        await asyncio.wait([waiting])
    if _failed(waiting):
        await waiting
    return 0


def _failed(task: "asyncio.Future[None]") -> bool:
    return not task.cancelled() and task.exception() is not None


async def serve_terminal(
    config: Config, run_input: RunInput, text: str, defaults: Ask, pipeline: Pipeline
) -> int:
    """Runs in=text, in=stdin or in=batch: to its end. Returns the exit code."""
    name = defaults.model or next(iter(pipeline.models))
    if run_input.kind == "text":
        from dynemo.terminal.chat.run import chat

        return await chat(pipeline, model=name, system=config.system, settings=defaults)
    if run_input.kind == "stdin":
        from dynemo.terminal.prompt import answer

        return await answer(
            pipeline,
            model=name,
            system=config.system,
            settings=defaults,
            text=text,
            out=sys.stdout.buffer,
        )
    from dynemo.terminal.batch.run import batch

    return await batch(
        pipeline,
        model=name,
        system=config.system,
        settings=defaults,
        source=Path(run_input.value),
        output=config.output,
        concurrency=config.concurrency,
    )


def stop_on_signals() -> asyncio.Event:
    """An event that the first SIGINT, SIGTERM or SIGHUP sets. The second one cancels this task, and
    so ends the time of grace. A second SIGHUP does nothing: shell and system both send one."""
    stop = asyncio.Event()
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    is_stopping = False  # not `stop`, which others may set

    def on_signal(number: int) -> None:
        nonlocal is_stopping
        if is_stopping:
            if number != signal.SIGHUP:
                task.cancel(number)
            return
        is_stopping = True
        stop.set()
        loop.call_later(_HINT_SECONDS, _print_hint)

    for number in (signal.SIGINT, signal.SIGTERM, *hangups()):
        loop.add_signal_handler(number, on_signal, number)
    return stop


def _print_hint() -> None:
    with suppress(OSError):  # the terminal has gone
        print(
            "dynemo-run: Waiting for running requests; press Ctrl-C to stop now.", file=sys.stderr
        )
