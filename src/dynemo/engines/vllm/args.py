"""vLLM's arguments for one host: what we were told, and over it the user's own.

They are checked by vLLM's own parser, so that what goes after `--` is what `vllm serve` takes.
"""

import os
from collections.abc import Iterable
from dataclasses import fields
from typing import Any, NoReturn

from dynemo.engines.options import check_values, kinds_of, unknown_argument, unknown_option
from dynemo.engines.rendezvous import meeting_place
from dynemo.engines.vllm.cpu import check_devices, compute_in_core, free_memory
from dynemo.errors import UsageError
from dynemo.messages.spec import EngineSpec

#: On a CPU the KV cache takes what so many sequences of full length need, at most this share of the
#: free memory: vLLM writes to all of it at its start. On a GPU vLLM measures.
_KV_SEQUENCES = 16
_KV_SHARE = 0.25
#: vLLM's arguments that follow from ours, and which of ours.
_OURS = {
    "model": "MODEL",
    "nnodes": "--num-nodes",
    "node_rank": "--node-rank",
    "tensor_parallel_size": "--tensor-parallel-size",
    "master_addr": "--dist-init-addr",
    "master_port": "--dist-init-addr",
}
_SEE = "`vllm serve --help=all` lists them."


def defaults(spec: EngineSpec, *, cpu_memory: int | None) -> dict[str, Any]:
    """What `AsyncEngineArgs` gets from us. `cpu_memory` is the free memory of a CPU, in bytes, and
    None on anything else. Raises UsageError."""
    made: dict[str, Any] = {
        "model": spec.model,
        "skip_tokenizer_init": True,
        "language_model_only": True,  # what reads images needs its tokenizer, and gets none from us
        "generation_config": "vllm",  # no EOS ids and no sampling of its own: requests say both
        "max_model_len": spec.context_length or -1,  # -1: the model's, or as much as memory holds
        "tensor_parallel_size": spec.parallel.tensor,
    }
    if spec.slots is not None:
        made["max_num_seqs"] = spec.slots
    if spec.tokenizer_source and is_gguf(spec):
        made["hf_config_path"] = spec.tokenizer_source
    if spec.parallel.nodes > 1:
        host, port = meeting_place(spec.parallel)
        made |= {
            "nnodes": spec.parallel.nodes,
            "node_rank": spec.parallel.rank,
            "master_addr": host,
            "master_port": port,
            "distributed_executor_backend": "mp",
        }
    if cpu_memory is not None:
        made["enforce_eager"] = True  # compiling needs a C++ compiler, and minutes
        made["kv_cache_memory_bytes"] = _kv_bytes(spec, int(cpu_memory * _KV_SHARE))
    return made


def _kv_bytes(spec: EngineSpec, most: int) -> int:
    context = spec.context_length or spec.model_context
    # Twice: they are counted in 16 bits, and the model may compute in 32.
    wanted = _KV_SEQUENCES * context * 2 * spec.kv_bytes_per_token
    return min(wanted, most) if wanted else most


def is_gguf(spec: EngineSpec) -> bool:
    return os.path.isfile(spec.model)


def engine_args(spec: EngineSpec, log_config: str) -> Any:
    """The `AsyncEngineArgs` of this host; `log_config` is the path of its logging configuration.

    Raises UsageError for what vLLM has no argument for, and for what is ours to say.
    """
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    cpu_memory = free_memory()
    ours = {**defaults(spec, cpu_memory=cpu_memory), "log_config_file": log_config}
    known = [field.name for field in fields(AsyncEngineArgs)]
    extra = {name.replace("-", "_"): value for name, value in spec.extra.items()}
    for name in extra:
        if name not in known:
            raise unknown_argument("vllm", name, known, see=_SEE)
    parser = AsyncEngineArgs.add_cli_args(
        FlexibleArgumentParser(prog="vllm", add_help=False, allow_abbrev=False)
    )
    parser.error = _refuse
    check_values("vLLM", extra, kinds_of(parser._actions))
    _check_names(spec.options, parser._option_string_actions)
    decided = {name: ours.get(name, parser.get_default(name)) for name in _OURS}
    parser.set_defaults(**{**ours, **extra})
    given = parser.parse_args(spec.options)
    for name, value in decided.items():
        if getattr(given, name) != value:
            raise UsageError(
                f"vLLM's {name} follows from {_OURS[name]}; say it there, before `--`."
            )
    args = AsyncEngineArgs.from_cli_args(given)
    # Nodes may hold replicas of the model as well; on one, vLLM itself counts what these need.
    replicas = args.data_parallel_size if args.nnodes > 1 else 1
    times = args.pipeline_parallel_size * replicas
    check_devices(spec.parallel, times, is_cpu=cpu_memory is not None)
    if cpu_memory is not None:
        compute_in_core(args)
    return args


def _check_names(options: Iterable[str], known: Iterable[str]) -> None:
    """argparse tells of an unknown name without the one that was meant."""
    names = [name for name in known if name.startswith("--")]
    for option in options:
        name = option.partition("=")[0].partition(".")[0].replace("_", "-")
        if name.startswith("--") and name not in names:
            raise unknown_option("vllm", name, names, see=_SEE)


def _refuse(message: str) -> NoReturn:
    raise UsageError(f"vLLM does not take its options: {message}.")
