"""The half of a run that has an event loop: joins instance, pipeline and input, until it ends."""

import asyncio
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from dynemo.arguments import Place
from dynemo.config import Config
from dynemo.errors import DynemoError
from dynemo.messages import Ask, EngineSpec, Instance
from dynemo.pipeline import Pipeline, ServedModel
from dynemo.runtime.child import Child, spawn
from dynemo.runtime.local import Ready, local_instance
from dynemo.text.card import Card


@dataclass(frozen=True)
class Run:
    """All that was decided and started before."""

    config: Config
    place: Place
    spec: EngineSpec
    defaults: Ask  #: of --request-template
    card: Card
    child: Child
    text: str  #: the prompt of in=stdin
    listener: socket.socket | None  #: of in=http


def run(run: Run) -> int:
    """Runs to the end; returns the exit code. Raises DynemoError."""
    with _runner(run.place) as runner:
        try:
            return runner.run(_serve(run))
        except asyncio.CancelledError:
            return 128 + signal.SIGTERM


def _runner(place: Place) -> asyncio.Runner:
    if place.kind != "http":
        return asyncio.Runner()  # uvloop takes longer to import than one answer would gain
    import uvloop

    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


async def _serve(run: Run) -> int:
    async with local_instance(run.child, lambda: spawn(run.spec)) as (local, ready):
        name = run.card.name
        model = ServedModel(name, int(time.time()), run.card, local)
        pipeline = Pipeline({name: model}, defaults=run.defaults)
        if run.listener is not None:
            return await _http(run, pipeline, ready, run.listener)
        if run.place.kind == "text":
            import dynemo.terminal.chat  # noqa: F401  (slow to import, and the engine is loading)
        print(_greeting(name, await _until_stopped(ready)), file=sys.stderr)
        return await _terminal(run, pipeline)


async def _until_stopped(ready: Ready) -> Instance:
    """The instance, once the engine has loaded. SIGTERM ends the wait as Ctrl-C does."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await asyncio.shield(ready)
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def _terminal(run: Run, pipeline: Pipeline) -> int:
    config, name = run.config, run.card.name
    if run.place.kind == "text":
        from dynemo.terminal.chat import chat

        return await chat(pipeline, model=name, system=config.system, settings=run.defaults)
    if run.place.kind == "stdin":
        from dynemo.terminal.prompt import answer

        return await answer(
            pipeline,
            model=name,
            system=config.system,
            settings=run.defaults,
            text=run.text,
            out=sys.stdout.buffer,
        )
    from dynemo.terminal.batch import batch

    return await batch(
        pipeline,
        model=name,
        system=config.system,
        settings=run.defaults,
        source=Path(run.place.value),
        output=config.output,
        concurrency=config.concurrency,
    )


async def _http(run: Run, pipeline: Pipeline, ready: Ready, listener: socket.socket) -> int:
    """Serves at once, with 503 until the engine has loaded; ends on a signal, or with the reason
    why the engine did not load."""
    from dynemo.http.app import build_app
    from dynemo.http.server import serve

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)

    async def announce() -> None:
        try:
            instance = await asyncio.shield(ready)
            print(_greeting(run.card.name, instance, listener), file=sys.stderr)
        except DynemoError:
            stop.set()

    announcing = asyncio.create_task(announce())
    try:
        await serve(build_app(pipeline), listener=listener, grace=run.config.grace, stop=stop)
    finally:
        announcing.cancel()
        await asyncio.wait([announcing])
    if ready.done() and (problem := ready.exception()) is not None:
        raise problem
    return 0


def _greeting(name: str, instance: Instance, listener: socket.socket | None = None) -> str:
    parts = [f"model {name}", f"engine {instance.engine}", f"context {instance.context_length}"]
    if listener is not None:
        host, port = listener.getsockname()[:2]
        parts.append(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    return " · ".join(parts)
