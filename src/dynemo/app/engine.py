"""Chooses the engine and the model of a run, and makes the `EngineSpec` of the engine's process."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynemo.app.settings.modes import DEFAULT, Mode, RunOutput
from dynemo.app.settings.options import Config
from dynemo.environments.entry import EngineEntry
from dynemo.environments.find import default_engine, find_python
from dynemo.environments.registry import OWN, find_entry
from dynemo.errors import UsageError
from dynemo.interrupt import interrupt_raises
from dynemo.messages.spec import EngineSpec, Parallel
from dynemo.models.load import read_model
from dynemo.spelling import quoted

if TYPE_CHECKING:
    from dynemo.models.choose import ModelFormat
    from dynemo.models.find import Found
    from dynemo.models.load import ModelFiles


def engine_spec(config: Config, mode: Mode) -> "tuple[EngineSpec, ModelFiles]":
    """Finds the model, and downloads it if it must. Raises UsageError and ModelError."""
    output = mode.output
    argument = _own_file(output) if output.kind == OWN.name else output.value
    entry = None if output.kind == DEFAULT else find_entry(output.kind)
    parallel = _parallel(config, mode, entry)
    found = _find(config, entry)
    if entry is None:
        entry = default_engine(found.format, config.engine_python)
    name = config.model_name
    if entry is OWN and config.model is None:
        name = name or Path(argument).stem
    formats = (config.tool_format, config.reasoning_format)
    files = read_model(found, name, config.model_config, formats)
    _check_context(config.context_length, files.context_length, files.name)
    spec = EngineSpec(
        engine=entry.name,
        argument=argument,
        model=str(found.path),
        workdir="",
        context_length=config.context_length,
        model_bytes=files.size,
        model_context=files.context_length,
        kv_bytes_per_token=files.kv_bytes_per_token,
        slots=1 if mode.input.kind in ("stdin", "text") else None,
        embeds=files.embeds,
        vocabulary=files.vocabulary,
        tokenizer_source=_absolute(config.model_config) if config.model_config else "",
        has_keys=bool(config.api_key or config.api_key_file),
        parallel=parallel,
        extra=_extra(config.extra_engine_args),
        options=list(config.engine_options),
        verbosity=config.verbosity,
    )
    return spec, files


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _find(config: Config, engine: EngineEntry | None) -> "Found":
    """The model, in a form that the engine reads."""
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
    with interrupt_raises():  # a download then says how to resume it
        found = find_model(
            config.model,
            needs=needs,
            engine=engine.name if engine else "dynemo-run",
            takes_engines="engine" in reads,
        )
    if engine is not None and found.format not in reads:
        raise UsageError(
            f"{quoted(str(config.model))} is an engine folder of TensorRT-LLM, which {engine.name} "
            "cannot read; use out=trtllm, or give another model."
        )
    return found


def _own_file(output: RunOutput) -> str:
    """The path of out=FILE.py. Raises UsageError."""
    path = Path(output.value).expanduser()
    if not path.is_file():
        raise UsageError(
            f"There is no file {quoted(output.value)} for out=; give a Python file that defines "
            "`generate`."
        )
    return str(path.absolute())


def _extra(path: Path | None) -> dict[str, Any]:
    """The options in the file of --extra-engine-args. Raises UsageError."""
    from msgspec import DecodeError

    from dynemo.foreign import decode_json

    if path is None:
        return {}
    try:
        return decode_json(path.read_bytes(), dict[str, Any])
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
    except DecodeError as error:
        why = f"is not a JSON object: {error}"
    raise UsageError(f"The file of --extra-engine-args, {quoted(str(path))}, {why}.")


def _parallel(config: Config, mode: Mode, engine: EngineEntry | None) -> Parallel:
    """The devices and machines of the engine, and this machine's rank. Raises UsageError."""
    nodes, rank = config.num_nodes, config.node_rank
    if rank >= nodes:
        raise UsageError(
            f"--node-rank {rank} is out of range: with --num-nodes {nodes} "
            f"it is at most {nodes - 1}."
        )
    if nodes > 1 and not config.dist_init_addr and not (engine and engine.has_launcher):
        raise UsageError(
            f"--num-nodes {nodes} needs --dist-init-addr HOST:PORT, an address of rank 0's machine."
        )
    if rank == 0 and mode.input.kind == "none":
        raise UsageError(
            "in=none is a rank above 0 of an engine on several machines, and this is rank 0; "
            "rank 0 takes the requests, so give it in=http."
        )
    if rank > 0 and mode.input.kind != "none":
        raise UsageError(
            f"Rank {rank} takes no requests, rank 0 does; give it in=none, "
            f"not in={mode.input.kind}."
        )
    return Parallel(
        tensor=config.tensor_parallel_size, nodes=nodes, rank=rank, leader=config.dist_init_addr
    )


def _check_context(wanted: int | None, most: int, name: str) -> None:
    if wanted and most and wanted > most:
        raise UsageError(
            f"--context-length {wanted} is more than {name} was made for; give at most {most}."
        )
