"""vLLM's arguments for one host: our defaults, overridden by the user's own.

vLLM's own parser checks them, so that the options after `--` are those of `vllm serve`.
"""

import os
from collections.abc import Iterable
from dataclasses import fields
from typing import Any, NoReturn

from dynemo.engines.options import check_values, unknown_argument, unknown_option, value_types
from dynemo.engines.rendezvous import rendezvous_address
from dynemo.engines.vllm import guides
from dynemo.engines.vllm.cpu import check_devices, compute_in_core, free_memory
from dynemo.errors import UsageError
from dynemo.messages.spec import EngineSpec

#: On a CPU the KV cache holds this many sequences of full length, but takes at most this share of
#: the free memory. vLLM writes to the whole cache at start. On a GPU vLLM measures.
_KV_SEQUENCES = 16
_KV_SHARE = 0.25
#: vLLM's arguments that follow from our flags.
_OURS = {
    "model": "MODEL",
    "nnodes": "--num-nodes",
    "node_rank": "--node-rank",
    "tensor_parallel_size": "--tensor-parallel-size",
    "master_addr": "--dist-init-addr",
    "master_port": "--dist-init-addr",
}
_SEE = "`vllm serve --help=all` lists them."


def defaults(
    spec: EngineSpec, *, cpu_memory: int | None, has_tokenizer: bool = False
) -> dict[str, Any]:
    """Returns our defaults for `AsyncEngineArgs`. Raises UsageError.

    `cpu_memory` is the free memory in bytes if vLLM computes on a CPU, otherwise None.
    `has_tokenizer`: vLLM can load the tokenizer, which it needs for guided answers alone.
    """
    made: dict[str, Any] = {
        "model": spec.model,
        "skip_tokenizer_init": not has_tokenizer,
        "language_model_only": True,  # image input would need vLLM's own tokenizer
        "generation_config": "vllm",  # no EOS ids and sampling of its own: requests have both
        "max_model_len": spec.context_length
        or -1,  # -1: the model's length, or as much as fits in memory
        "tensor_parallel_size": spec.parallel.tensor,
    }
    if spec.slots is not None:
        made["max_num_seqs"] = spec.slots
    if spec.tokenizer_source and is_gguf(spec):
        made["hf_config_path"] = spec.tokenizer_source
    if spec.parallel.nodes > 1:
        host, port = rendezvous_address(spec.parallel)
        made |= {
            "nnodes": spec.parallel.nodes,
            "node_rank": spec.parallel.rank,
            "master_addr": host,
            "master_port": port,
            "distributed_executor_backend": "mp",
        }
    if cpu_memory is not None:
        made["enforce_eager"] = True  # compiling takes minutes and a C++ compiler
        made["kv_cache_memory_bytes"] = _kv_bytes(spec, int(cpu_memory * _KV_SHARE))
    return made


def _kv_bytes(spec: EngineSpec, most: int) -> int:
    context = spec.context_length or spec.model_context
    # Twice, because kv_bytes_per_token assumes 16 bits and the model may compute in 32.
    wanted = _KV_SEQUENCES * context * 2 * spec.kv_bytes_per_token
    return min(wanted, most) if wanted else most


def is_gguf(spec: EngineSpec) -> bool:
    return os.path.isfile(spec.model)


def engine_args(spec: EngineSpec, log_config: str) -> Any:
    """Returns the `AsyncEngineArgs` of this host.

    `log_config` is the path of vLLM's log configuration.

    Raises UsageError for an unknown argument, and for an argument that follows from our flags.
    """
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    cpu_memory = free_memory()
    # Only rank 0 schedules, so only it needs a tokenizer.
    can_guide = not is_gguf(spec) and spec.parallel.rank == 0 and guides.has_tokenizer(spec)
    ours = defaults(spec, cpu_memory=cpu_memory, has_tokenizer=can_guide)
    ours["log_config_file"] = log_config
    if can_guide:
        ours["structured_outputs_config"] = guides.backend_config()
    known = [field.name for field in fields(AsyncEngineArgs)]
    extra = {name.replace("-", "_"): value for name, value in spec.extra.items()}
    for name in extra:
        if name not in known:
            raise unknown_argument("vllm", name, known, see=_SEE)
    parser = AsyncEngineArgs.add_cli_args(
        FlexibleArgumentParser(prog="vllm", add_help=False, allow_abbrev=False)
    )
    parser.error = _refuse
    check_values("vLLM", extra, value_types(parser._actions))
    _check_names(spec.options, parser._option_string_actions)
    decided = {name: ours.get(name, parser.get_default(name)) for name in _OURS}
    parser.set_defaults(**{**ours, **extra})
    given = parser.parse_args(spec.options)
    for name, value in decided.items():
        if getattr(given, name) != value:
            raise UsageError(
                f"The vLLM option {name} follows from {_OURS[name]}. Set it there, before `--`."
            )
    args = AsyncEngineArgs.from_cli_args(given)
    # Nodes may also hold replicas of the model. On a single node vLLM itself counts their devices.
    replicas = args.data_parallel_size if args.nnodes > 1 else 1
    times = args.pipeline_parallel_size * replicas
    check_devices(spec.parallel, times, is_cpu=cpu_memory is not None)
    if cpu_memory is not None:
        compute_in_core(args)
    return args


def _check_names(options: Iterable[str], known: Iterable[str]) -> None:
    """Raises UsageError for an unknown name, with the name that was probably meant.

    argparse would not suggest one.
    """
    names = [name for name in known if name.startswith("--")]
    for option in options:
        name = option.partition("=")[0].partition(".")[0].replace("_", "-")
        if name.startswith("--") and name not in names:
            raise unknown_option("vllm", name, names, see=_SEE)


def _refuse(message: str) -> NoReturn:
    raise UsageError(f"vLLM refuses its options: {message.rstrip('.')}.")
