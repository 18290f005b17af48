"""The composition root: decides what a run needs, starts its engine, and hands both to `run`.

Imports little at its top: the engine is started before what only the runner needs is imported.
"""

import io
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynemo.app.arguments import COMMANDS, Input, parse, parse_input, parse_output
from dynemo.app.config import Config
from dynemo.environments.registry import ENGINES, OWN, EngineEntry
from dynemo.errors import DynemoError, UsageError
from dynemo.interrupt import interrupt_ends, interrupt_raises

if TYPE_CHECKING:
    import socket

    from dynemo.messages.ask import Ask
    from dynemo.messages.spec import EngineSpec, Parallel
    from dynemo.models.choose import ModelFormat
    from dynemo.models.find import Found
    from dynemo.models.load import ModelFiles


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns the exit code. A mistake is one sentence on standard error."""
    _open_closed()
    _write_utf8()
    flags = [word for word in argv if word.startswith("-v")]
    is_loud = sum(word.count("v") for word in flags) >= 2
    try:
        if argv and argv[0] in COMMANDS:
            from dynemo.commands.dispatch import run_command

            return run_command(argv)
        with interrupt_ends():
            return _run(parse(argv))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
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


def _open_closed() -> None:
    """Gives a standard stream that whoever started us has closed its place again, so that no pipe
    or socket of ours takes it."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (for the whole run)


def _write_utf8() -> None:
    """In UTF-8 whatever the locale is, as answers are: a prompt comes out exactly, and no sentence
    fails for want of a letter."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _run(config: Config) -> int:
    from dynemo.environments.find import find_python
    from dynemo.log import set_up
    from dynemo.serving.local.child import discard, spawn

    place = parse_input(config.input)
    set_up(config.log_format, config.verbosity, is_server=place.kind in ("http", "dyn"))
    _check_ends(place)
    defaults = _request_template(config.request_template)
    out = parse_output(config.out)
    if out.startswith("dyn"):
        return _run_ingress(config, place, defaults)
    parallel = _parallel(config, place, out)
    spec, files = _choose(config, out, 1 if place.kind in ("stdin", "text") else None, parallel)
    python = find_python(_entry(spec.engine), config.engine_python)
    listener = _listener(config, place)
    with interrupt_raises():  # it leaves no folder behind
        child = spawn(spec, python)
    if parallel.rank > 0:
        from dynemo.app.run import run_follower

        return run_follower(spec, child)
    try:
        with interrupt_ends(partial(discard, child)):
            # While the engine loads in its process: what only the runner needs.
            from dynemo.app.run import Run, run

            card = files.card()
            text = _standard_input() if place.kind == "stdin" else ""
    except BaseException:
        discard(child)
        raise
    return run(Run(config, place, spec, python, defaults, card, child, text, listener))


def _run_ingress(config: Config, place: Input, defaults: "Ask") -> int:
    if place.kind == "dyn":
        raise UsageError(
            "in=dyn:// with out=dyn:// would only pass requests on; "
            "give a worker an engine, or an ingress another in=."
        )
    if place.kind == "none":
        raise UsageError(
            "in=none is a follower rank of an engine on several machines, and "
            f"{config.out} is a pool: give it in=http, in=text or in=batch:FILE."
        )
    if config.model is not None:
        raise UsageError(f"The workers of {config.out} have the model; leave out {config.model!r}.")
    listener = _listener(config, place)
    text = _standard_input() if place.kind == "stdin" else ""
    from dynemo.app.run import run_ingress

    return run_ingress(config, place, defaults, text, listener)


def _choose(
    config: Config, wanted: str, slots: int | None, parallel: "Parallel"
) -> "tuple[EngineSpec, ModelFiles]":
    """The model, and what its engine is told."""
    from dynemo.environments.find import default_engine
    from dynemo.messages.spec import EngineSpec
    from dynemo.models.load import read_model

    engine, argument = _split_argument(wanted) if wanted else (None, "")
    found = _find(config, engine)
    if engine is None:
        engine = default_engine(found.format, config.engine_python)
    name = config.model_name
    if engine is OWN and config.model is None:
        name = name or Path(argument).stem
    files = read_model(found, name, config.model_config)
    _check_context(config.context_length, files.context_length, files.name)
    spec = EngineSpec(
        engine=engine.name,
        argument=argument,
        model=str(found.path),
        workdir="",
        context_length=config.context_length,
        model_bytes=files.size,
        model_context=files.context_length,
        kv_bytes_per_token=files.kv_bytes_per_token,
        slots=slots,
        embeds=files.embeds,
        vocabulary=files.vocabulary,
        tokenizer_source=str(Path(config.model_config).expanduser().absolute())
        if config.model_config
        else "",
        parallel=parallel,
        extra=_extra(config.extra_engine_args),
        options=list(config.engine_options),
        verbosity=config.verbosity,
    )
    return spec, files


def _find(config: Config, engine: EngineEntry | None) -> "Found":
    """The model, in a form that the engine reads."""
    from dynemo.environments.find import find_python
    from dynemo.models.find import find_model

    needs: ModelFormat | None = None
    reads: frozenset[str] = frozenset()
    if engine is not None:
        if not (config.model and os.path.exists(os.path.expanduser(config.model))):
            find_python(engine, config.engine_python)  # before anything is downloaded for it
        reads = engine.reads
        if not {"gguf", "checkout"} <= reads:
            needs = "gguf" if "gguf" in reads else "checkout"
        elif config.model is None:
            needs = engine.demo
    with interrupt_raises():  # a download says then how it goes on
        found = find_model(
            config.model,
            needs=needs,
            engine=engine.name if engine else "dynemo-run",
            takes_engines="engine" in reads,
        )
    if engine is not None and found.format not in reads:
        raise UsageError(
            f"{config.model} is a TensorRT-LLM engine, and {engine.name} cannot read it."
        )
    return found


def _check_ends(place: Input) -> None:
    """What this input needs on its own side, before an engine is loaded for it."""
    if place.kind == "text" and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("in=text is a chat and needs a terminal; in=stdin answers one prompt.")
    if place.kind == "batch" and not os.path.isfile(place.value):
        raise UsageError(f"No such file for in=batch: {place.value}; give a file of JSON lines.")


def _entry(name: str) -> EngineEntry:
    return OWN if name == OWN.name else ENGINES[name]


def _split_argument(out: str) -> tuple[EngineEntry, str]:
    """`out=`'s engine, and what it is told: the path of FILE.py, the `text` of echo:text."""
    if not out.endswith(".py"):
        engine, _, argument = out.partition(":")
        return ENGINES[engine], argument
    path = Path(out).expanduser()
    if not path.is_file():
        raise UsageError(f"No such file for out=: {out}; give a Python file with `generate` in it.")
    return OWN, str(path.absolute())


def _extra(path: Path | None) -> dict[str, Any]:
    """What --extra-engine-args holds."""
    from msgspec import DecodeError, json

    if path is None:
        return {}
    try:
        return json.decode(path.expanduser().read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise UsageError(f"--extra-engine-args {path} cannot be read: {error.strerror}.") from None
    except DecodeError as error:
        raise UsageError(f"--extra-engine-args {path} is no JSON object: {error}.") from None


def _parallel(config: Config, place: Input, out: str) -> "Parallel":
    """Over which devices and nodes, and which node this is. Raises UsageError."""
    from dynemo.messages.spec import Parallel

    nodes, rank = config.num_nodes, config.node_rank
    engine = ENGINES.get(out)
    if config.tensor_parallel_size > 1 and not (engine and engine.has_tensor_parallel):
        able = ", ".join(name for name, entry in ENGINES.items() if entry.has_tensor_parallel)
        raise UsageError(f"--tensor-parallel-size needs an engine that can: out={able}.")
    if nodes > 1 and not (engine and engine.has_nodes):
        able = ", ".join(name for name, entry in ENGINES.items() if entry.has_nodes)
        raise UsageError(f"--num-nodes needs an engine that can: out={able}.")
    if rank >= nodes:
        raise UsageError(
            f"--node-rank {rank} is out of range: with --num-nodes {nodes} "
            f"it is at most {nodes - 1}."
        )
    if nodes > 1 and not config.dist_init_addr and not (engine and engine.has_launcher):
        raise UsageError(
            f"--num-nodes {nodes} needs --dist-init-addr HOST:PORT, on rank 0's machine."
        )
    if nodes == 1 and config.dist_init_addr:
        raise UsageError("--dist-init-addr is where several machines meet; give --num-nodes too.")
    if rank == 0 and place.kind == "none":
        raise UsageError(
            "in=none is a follower rank of a multi-node engine, and this is rank 0: "
            "rank 0 takes the requests, so give it in=http."
        )
    if rank > 0 and place.kind != "none":
        raise UsageError(
            f"Rank {rank} follows rank 0, which takes the requests: give it in=none, "
            f"not in={place.kind}."
        )
    return Parallel(
        tensor=config.tensor_parallel_size, nodes=nodes, rank=rank, leader=config.dist_init_addr
    )


def _check_context(wanted: int | None, most: int, name: str) -> None:
    if wanted and most and wanted > most:
        raise UsageError(
            f"--context-length {wanted} is above what {name} was made for; give at most {most}."
        )


def _request_template(path: str | None) -> "Ask":
    from dynemo.messages.ask import Ask

    if path is None:
        return Ask()
    from dynemo.api.openai.defaults import read_request_template

    return read_request_template(path)


def _standard_input() -> str:
    from dynemo.terminal.prompt import read_prompt

    return read_prompt(sys.stdin.buffer)


def _listener(config: Config, place: Input) -> "socket.socket | None":
    """Of in=http, or of a worker's status port."""
    if place.kind == "http":
        from dynemo.http.server import bind

        return bind(config.http_host, config.http_port)
    if place.kind == "dyn" and config.status_port is not None:
        from dynemo.http.server import bind

        return bind(*config.status_port, flag="--status-port")
    return None
