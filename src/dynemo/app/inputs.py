"""The inputs of a run, each until it ends: HTTP, a terminal's three, and the signals to all."""

import asyncio
import signal
import socket
import sys
from collections.abc import Coroutine
from pathlib import Path

from dynemo.app.settings.modes import RunInput
from dynemo.app.settings.options import Config
from dynemo.messages.ask import Ask
from dynemo.serving.pipeline import Pipeline

#: A stop that takes longer is told how to be quicker.
_HINT_SECONDS = 1.0


async def serve_http(
    pipeline: Pipeline,
    listener: socket.socket,
    grace: float,
    ready: Coroutine[None, None, None],
) -> int:
    """Serves at once, with 503 until there is an instance; ends on a signal, or with what `ready`
    raises: why the engine did not load. The exit code."""
    from dynemo.http.app import build_app
    from dynemo.http.server import serve

    stop = stop_on_signals()
    waiting = asyncio.ensure_future(ready)
    waiting.add_done_callback(lambda task: stop.set() if _failed(task) else None)
    try:
        await serve(build_app(pipeline), listener=listener, grace=grace, stop=stop)
    finally:
        waiting.cancel()
        await asyncio.wait([waiting])
    if _failed(waiting):
        await waiting
    return 0


def _failed(task: "asyncio.Future[None]") -> bool:
    return not task.cancelled() and task.exception() is not None


async def serve_terminal(
    config: Config, place: RunInput, text: str, defaults: Ask, pipeline: Pipeline
) -> int:
    """in=text, in=stdin or in=batch:, to its end. The exit code."""
    name = defaults.model or next(iter(pipeline.models))
    if place.kind == "text":
        from dynemo.terminal.chat.run import chat

        return await chat(pipeline, model=name, system=config.system, settings=defaults)
    if place.kind == "stdin":
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
        source=Path(place.value),
        output=config.output,
        concurrency=config.concurrency,
    )


def stop_on_signals() -> asyncio.Event:
    """Set by a first SIGINT or SIGTERM; a second one cancels this task, and so ends the grace."""
    stop, asked = asyncio.Event(), asyncio.Event()
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def on_signal(number: int) -> None:
        if asked.is_set():
            task.cancel(number)
            return
        asked.set()
        stop.set()
        loop.call_later(_HINT_SECONDS, _say_how_to_end_now)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)
    return stop


def _say_how_to_end_now() -> None:
    print("dynemo-run: finishing what runs; a second Ctrl-C ends it now", file=sys.stderr)


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
