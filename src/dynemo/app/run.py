"""The part of a run that has an event loop: joins instance, pipeline and input until it ends."""

import asyncio
import gc
import math
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynemo.app.inputs import serve_http, serve_terminal, stop_on_signals
from dynemo.app.settings.modes import RunInput
from dynemo.app.settings.options import Config
from dynemo.descriptors import log_lack_once
from dynemo.errors import EngineLost, RequestError, UsageError
from dynemo.interrupt import hangups, interrupt_raises
from dynemo.messages.ask import Ask
from dynemo.messages.records import Instance
from dynemo.messages.spec import EngineSpec
from dynemo.planes.names import parse_name
from dynemo.prompt.card.card import Card
from dynemo.serving.local.backend import LocalBackend
from dynemo.serving.local.child import Child, spawn
from dynemo.serving.local.instance import Ended, LocalInstance, Ready, local_instance
from dynemo.serving.local.weights import WeightsProgress
from dynemo.serving.migration import text_codec
from dynemo.serving.pipeline import Pipeline
from dynemo.serving.served import ServedModel
from dynemo.spelling import visible
from dynemo.terminal.loading import loading_shown

if TYPE_CHECKING:
    from dynemo.http.bound_server import BoundServer
    from dynemo.metrics import WorkerMetrics

#: A computing thread lets the event loop run after this time. Python's own 5 ms would delay each
#: step of every stream while a thread tokenizes.
_SWITCH_SECONDS = 0.0005
#: New objects before Python collects garbage. One read of a busy connection makes thousands of
#: short-lived ones; at Python's own 700, collecting took a fifth of an ingress's time.
_COLLECT_AFTER = 20_000


@dataclass(frozen=True)
class Run:
    """Everything that was decided and started before the loop."""

    config: Config
    input: RunInput
    spec: EngineSpec
    python: str  #: runs the engine
    defaults: Ask  #: from --request-template
    card: Card
    child: Child
    text: str  #: the prompt of in=stdin
    server: "BoundServer | None"  #: of in=http, or of --status-port


def run(run: Run) -> int:
    """Runs an engine and its input to the end. Returns the exit code. Raises DynemoError."""
    return _in_loop(run.input, _serve(run))


def run_follower(spec: EngineSpec, child: Child) -> int:
    """Runs a rank above 0 of an engine on several machines to the end. Raises DynemoError."""
    return _in_loop(RunInput("none"), _follow(spec, child))


def run_ingress(
    config: Config, run_input: RunInput, defaults: Ask, text: str, server: "BoundServer | None"
) -> int:
    """Runs an input in front of a pool to the end. Returns the exit code. Raises DynemoError."""
    return _in_loop(run_input, _serve_ingress(config, run_input, defaults, text, server))


def _in_loop(run_input: RunInput, work: Coroutine[None, None, int]) -> int:
    # Closes the coroutine if an error comes before it runs.
    with closing(work), _runner(run_input) as runner, interrupt_raises():
        log_lack_once(runner.get_loop())
        try:
            return runner.run(work)
        except asyncio.CancelledError as error:
            # Without a number it was a Ctrl-C before the Runner handles them.
            number: int = next(iter(error.args), signal.SIGINT)
            return 128 + number


def _runner(run_input: RunInput) -> asyncio.Runner:
    if run_input.kind not in ("http", "dyn"):
        return asyncio.Runner()  # importing uvloop takes longer than one answer gains from it
    import uvloop

    sys.setswitchinterval(_SWITCH_SECONDS)
    # The modules stay loaded, so the collector need not look through them each time.
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


async def _serve(run: Run) -> int:
    def respawn() -> Child:
        return spawn(run.spec, run.python)

    # Ranks end together: a new rank 0 would not find the others.
    respawns = respawn if run.spec.parallel.nodes == 1 else None
    async with (
        local_instance(run.child, respawns, run.config.stall_timeout) as (local, ready),
        _loading_shown(run, ready),
    ):
        name = run.card.name
        if run.input.kind == "dyn":
            return await _run_worker(run, local, ready)
        backend = LocalBackend(local, text_codec(run.card.tokenizer))
        model = ServedModel(name, int(time.time()), run.card, backend)
        bound = _max_queue(run.config, run.input)
        pipeline = Pipeline(
            {name: model},
            defaults=run.defaults,
            max_queue=bound,
            parses_content=run.config.special_tokens_in_content == "parse",
        )
        if run.server is not None:
            greet = partial(_greeting, name, where=run.server.url)
            waiting = _announce_ready(greet, ready, pipeline, run.defaults, local.ended)
            return await serve_http(pipeline, run.server, run.config.grace, waiting)
        if run.input.kind == "text":
            import dynemo.terminal.chat.run  # noqa: F401  (slow to import, and the engine is loading)
        print(visible(_greeting(name, await _until_stopped(ready))), file=sys.stderr)
        _check_template(pipeline, run.defaults)
        work = serve_terminal(run.config, run.input, run.text, run.defaults, pipeline)
        return await _unless_lost(work, local.ended)


async def _unless_lost(work: Coroutine[None, None, int], ended: Ended) -> int:
    """The result of `work`. Raises if the engine stops permanently before that."""
    task = asyncio.ensure_future(work)
    both: list[asyncio.Future[Any]] = [task, ended]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        is_lost = not task.done()
        if is_lost:
            task.cancel()
            await asyncio.wait([task])
    if is_lost:
        ended.result()
    return task.result()


def _loading_shown(run: Run, ready: Ready) -> AbstractAsyncContextManager[None]:
    weights = WeightsProgress(run.child.process.pid, Path(run.spec.model))
    return loading_shown(run.card.name, ready, weights.read, run.spec.model_bytes)


async def _follow(spec: EngineSpec, child: Child) -> int:
    """Runs until a signal, or until the engine ends."""
    stop, parallel = stop_on_signals(), spec.parallel
    greeting = [f"rank {parallel.rank} of {parallel.nodes}", f"engine {spec.engine}"]
    leader = "its leader"
    if parallel.leader:
        greeting.append(f"leader {parallel.leader}")
        leader += f" at {parallel.leader}"
    async with local_instance(child, None) as (local, ready):
        local.ended.add_done_callback(lambda _: stop.set())
        print(visible(" · ".join(greeting)), file=sys.stderr)
        try:
            if await _loaded(ready, stop) is not None:
                await stop.wait()
            if local.ended.done():
                local.ended.result()
        except EngineLost as error:
            raise type(error)(
                f"Rank {parallel.rank} has ended, as it does when {leader} ends. {error}"
            ) from None
    return 0


async def _run_worker(run: Run, local: LocalInstance, ready: Ready) -> int:
    """Runs a worker until a signal."""
    from dynemo.app.networking import dialling_tls, open_discovery, open_request_server
    from dynemo.metrics import WorkerMetrics
    from dynemo.serving.handler import WorkerHandler
    from dynemo.serving.worker import Generation, WorkerNetwork, serve_worker

    address = parse_name(run.input.value)
    stop = stop_on_signals()
    local.ended.add_done_callback(lambda _: stop.set())
    where = run.input.value
    greeting = [where if run.server is None else f"{where} · status {run.server.url}"]

    def greet() -> None:
        if greeting and local.instance is not None:
            line = _greeting(run.card.name, local.instance, greeting.pop())
            print(visible(line), file=sys.stderr)

    metrics = WorkerMetrics(run.card.name)
    async with _status(run, local, metrics, stop), open_discovery(run.config) as discovery:
        await serve_worker(
            WorkerHandler(local, metrics),
            run.card,
            WorkerNetwork(
                run.spec.instance,
                address,
                discovery,
                partial(open_request_server, run.config),
                dialling_tls(run.config),
                Generation(bool(run.config.replace), run.config.weight),
            ),
            grace=run.config.grace,
            loaded=lambda: _loaded(ready, stop),
            stop=stop,
            on_ready=greet,
        )
    if local.ended.done():
        local.ended.result()
    return 0


def _status(
    run: Run, local: LocalInstance, metrics: "WorkerMetrics", stop: asyncio.Event
) -> AbstractAsyncContextManager[None]:
    """The status port of a worker, open from before the engine loads until everything has ended."""
    if run.server is None:
        return nullcontext()
    from dynemo.http.app import App
    from dynemo.http.drain import Drain
    from dynemo.http.status import status_port

    model = ServedModel(run.card.name, int(time.time()), run.card, local)
    pipeline = Pipeline({model.name: model}, defaults=run.defaults)
    app = App(pipeline, metrics, access=run.server.access)
    app.add_post("/drain", Drain(run.server.drain_keys, stop.set))
    return status_port(app, run.server, stop)


async def _loaded(ready: Ready, stop: asyncio.Event) -> Instance | None:
    """The instance when the engine has loaded; None if `stop` comes first. Raises if the engine
    does not load."""
    done = asyncio.ensure_future(asyncio.wait([ready]))
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({done, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        done.cancel()
        stopped.cancel()
    return ready.result() if ready.done() else None


async def _serve_ingress(
    config: Config, run_input: RunInput, defaults: Ask, text: str, server: "BoundServer | None"
) -> int:
    from dynemo.app.networking import ingress_planes
    from dynemo.router.router import make_router
    from dynemo.serving.ingress import ingress

    address = parse_name(config.out)
    async with (
        ingress_planes(config) as planes,
        ingress(
            address,
            planes,
            make_router=partial(make_router, config.router_mode),
            migration_limit=config.migration_limit,
        ) as found,
    ):
        bound = _max_queue(config, run_input)
        pipeline = Pipeline(
            found.models,
            defaults=defaults,
            source=found,
            max_queue=bound,
            parses_content=config.special_tokens_in_content == "parse",
        )
        if server is not None:
            greeting = _print_line(f"{config.out} · {server.url}")
            return await serve_http(pipeline, server, config.grace, greeting)
        if not found.appeared.is_set():
            print(visible(f"dynemo-run: Waiting for a worker of {config.out} ..."), file=sys.stderr)
        await found.appeared.wait()
        _check_template(pipeline, defaults)
        return await serve_terminal(config, run_input, text, defaults, pipeline)


def _max_queue(config: Config, run_input: RunInput) -> float | None:
    """Terminal inputs bound their requests themselves."""
    return config.max_queue if run_input.kind == "http" else math.inf


async def _until_stopped(ready: Ready) -> Instance:
    """The instance when the engine has loaded. SIGTERM and SIGHUP end the wait, as Ctrl-C does."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    signals = (signal.SIGTERM, *hangups())
    for number in signals:
        loop.add_signal_handler(number, task.cancel, number)
    try:
        return await asyncio.shield(ready)
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


async def _print_line(line: str) -> None:
    """A coroutine for `serve_http`, which starts it when it handles signals."""
    print(visible(line), file=sys.stderr)


async def _announce_ready(
    greet: Callable[[Instance], str], ready: Ready, pipeline: Pipeline, defaults: Ask, ended: Ended
) -> None:
    """Greets when the engine has loaded. Fails if it does not load, if it cannot honour the request
    template, or when it stops permanently; pending across restarts."""
    instance = await asyncio.shield(ready)
    _check_template(pipeline, defaults)
    print(visible(greet(instance)), file=sys.stderr)
    await asyncio.shield(ended)


def _check_template(pipeline: Pipeline, defaults: Ask) -> None:
    """Raises UsageError for a setting of the request template that the engine cannot honour."""
    if defaults == Ask():  # without a template, a model for embeddings is fine, too
        return
    try:
        pipeline.check_settings(defaults)
    except RequestError as error:
        raise UsageError(f"The request template cannot be used. {error}") from None


def _greeting(name: str, instance: Instance, where: str = "") -> str:
    parts = [f"model {name}", f"engine {instance.engine}", f"context {instance.context_length}"]
    return " · ".join([*parts, where] if where else parts)
