"""The composition root: builds the parts that a run needs and joins them. Nothing else does."""

import asyncio
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dynemo.arguments import COMMANDS, Place, parse, parse_input, parse_output
from dynemo.config import Config
from dynemo.engines.registry import ENGINES, Entry, default_engine, is_installed
from dynemo.errors import DynemoError, EngineNotInstalled, UsageError

if TYPE_CHECKING:
    import socket

    from dynemo.messages import Ask, EngineSpec, Instance
    from dynemo.models.load import ModelFiles
    from dynemo.pipeline import Pipeline
    from dynemo.runtime.local import Child, Ready
    from dynemo.text.card import Card


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns the exit code. What goes wrong is one sentence on standard error."""
    is_loud = any(word.startswith("-vv") for word in argv)
    try:
        if argv and argv[0] in COMMANDS:
            from dynemo.commands.dispatch import run_command

            return run_command(argv, COMMANDS)
        return _run(parse(argv))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
    except DynemoError as error:
        if is_loud:
            raise
        print(f"dynemo-run: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        if is_loud:
            raise
        print(
            f"dynemo-run: {type(error).__name__}: {error} (a fault of dynemo-run's own; "
            "-vv shows where)",
            file=sys.stderr,
        )
        return 1


@dataclass(frozen=True)
class _Plan:
    """All that is decided before anything is started."""

    config: Config
    place: Place
    spec: "EngineSpec"
    defaults: "Ask"


def _run(config: Config) -> int:
    from dynemo.log import set_up
    from dynemo.runtime.local import discard, spawn

    place = parse_input(config.input)
    set_up(config.log_format, config.verbosity, is_server=place.kind == "http")
    plan, source = _plan(config, place)
    listener = _listener(config) if place.kind == "http" else None
    child = spawn(plan.spec)
    try:
        # While the engine loads in its process: what only the runner needs.
        card = source.card()
        text = _standard_input() if place.kind == "stdin" else ""
    except BaseException:
        discard(child)
        raise
    with _runner(place) as runner:
        return runner.run(_serve(plan, card, child, text, listener))


def _plan(config: Config, place: Place) -> "tuple[_Plan, ModelFiles]":
    from dynemo.messages import EngineSpec
    from dynemo.models.find import find_model
    from dynemo.models.load import read_model

    wanted = parse_output(config.out)
    needs = None
    if wanted:
        _check_installed(ENGINES[wanted])
        reads = ENGINES[wanted].reads
        needs = next(iter(reads)) if len(reads) == 1 else None
    found = find_model(config.model, needs=needs, engine=wanted or "dynemo-run")
    files = read_model(found, config.model_name, config.model_config)
    engine = ENGINES[wanted] if wanted else _default_engine(found.kind)
    _check_context(config.context_length, files.context_length, files.name)
    spec = EngineSpec(
        engine=engine.name,
        model=str(found.path),
        workdir="",
        context_length=config.context_length,
        model_context=files.context_length,
        kv_bytes_per_token=files.kv_bytes_per_token,
        options=list(config.engine_options),
        verbosity=config.verbosity,
    )
    return _Plan(config, place, spec, _request_template(config.request_template)), files


def _check_installed(engine: Entry) -> None:
    if not is_installed(engine):
        raise EngineNotInstalled(f"{engine.name} is not installed; run `{engine.install}`.")


def _default_engine(kind: str) -> Entry:
    engine = default_engine(kind)
    if engine is not None:
        return engine
    for entry in ENGINES.values():
        if kind in entry.reads and entry.is_here:
            _check_installed(entry)
    raise UsageError(
        "This version has no engine for a checkout yet; give a GGUF file of the model, "
        "or out=echo for a dry run."
    )


def _check_context(wanted: int | None, most: int, name: str) -> None:
    if wanted and most and wanted > most:
        raise UsageError(
            f"--context-length {wanted} is above what {name} was made for; give at most {most}."
        )


def _request_template(path: str | None) -> "Ask":
    from dynemo.messages import Ask

    if path is None:
        return Ask()
    from dynemo.openai.template import read_request_template

    return read_request_template(path)


def _standard_input() -> str:
    if sys.stdin.isatty():
        print("dynemo-run: type the prompt, then Ctrl-D.", file=sys.stderr)
    return sys.stdin.buffer.read().decode("utf-8", "replace")


def _listener(config: Config) -> "socket.socket":
    from dynemo.http.server import bind

    return bind(config.http_host, config.http_port)


def _runner(place: Place) -> asyncio.Runner:
    if place.kind != "http":
        return asyncio.Runner()  # uvloop takes longer to import than one answer would gain
    import uvloop

    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


async def _serve(
    plan: _Plan, card: "Card", child: "Child", text: str, listener: "socket.socket | None"
) -> int:
    from dynemo.pipeline import Pipeline, ServedModel
    from dynemo.runtime.local import local_instance, spawn

    async with local_instance(child, lambda: spawn(plan.spec)) as (local, ready):
        model = ServedModel(card.name, int(time.time()), card, local)
        pipeline = Pipeline({card.name: model}, defaults=plan.defaults)
        if listener is not None:
            return await _http(plan, pipeline, card.name, ready, listener)
        instance = await _until_stopped(ready)
        print(_greeting(card.name, instance), file=sys.stderr)
        return await _terminal(plan, pipeline, card.name, text)


async def _until_stopped(ready: "Ready") -> "Instance":
    """The instance, once the engine has loaded. SIGTERM ends the wait as Ctrl-C does."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await ready
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def _terminal(plan: _Plan, pipeline: "Pipeline", name: str, text: str) -> int:
    config, settings = plan.config, plan.defaults
    if plan.place.kind == "text":
        from dynemo.terminal.chat import chat

        await chat(pipeline, model=name, system=config.system, settings=settings)
        return 0
    if plan.place.kind == "stdin":
        from dynemo.terminal.prompt import answer

        return await answer(
            pipeline,
            model=name,
            system=config.system,
            settings=settings,
            text=text,
            out=sys.stdout.buffer,
        )
    from dynemo.terminal.batch import batch

    return await batch(
        pipeline,
        model=name,
        system=config.system,
        settings=settings,
        source=Path(plan.place.value),
        output=config.output,
        concurrency=config.concurrency,
    )


async def _http(
    plan: _Plan, pipeline: "Pipeline", name: str, ready: "Ready", listener: "socket.socket"
) -> int:
    """Serves at once, with 503 until the engine has loaded; ends on a signal, or with the reason
    why the engine did not load."""
    from dynemo.http.app import build_app
    from dynemo.http.server import serve

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _stop, pipeline, stop)

    async def announce() -> None:
        try:
            print(_greeting(name, await ready, listener), file=sys.stderr)
        except DynemoError:
            stop.set()

    announcing = asyncio.create_task(announce())
    try:
        await serve(build_app(pipeline), listener=listener, grace=plan.config.grace, stop=stop)
    finally:
        announcing.cancel()
    if ready.done() and (problem := ready.exception()) is not None:
        raise problem
    return 0


def _stop(pipeline: "Pipeline", stop: asyncio.Event) -> None:
    pipeline.drain()
    stop.set()


def _greeting(name: str, instance: "Instance", listener: "socket.socket | None" = None) -> str:
    parts = [
        f"model {name}",
        f"engine {instance.engine}",
        f"context {instance.context_length}",
    ]
    if listener is not None:
        host, port = listener.getsockname()[:2]
        parts.append(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    return " · ".join(parts)
