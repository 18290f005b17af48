"""SGLang's arguments for one host: our defaults, overridden by the user's own.

SGLang's own parser checks them, so that the options after `--` are those of SGLang's server.
"""

import argparse
import os
from collections.abc import Iterable
from typing import Any, NoReturn

from dynemo.engines.options import check_values, unknown_argument, unknown_option, value_types
from dynemo.engines.ranks import own_cores, ranks_here, shared_cores
from dynemo.engines.rendezvous import rendezvous_address
from dynemo.errors import UsageError
from dynemo.messages.spec import EngineSpec, Parallel

#: The number of context tokens that SGLang keeps for itself.
_MARGIN = 6
#: Defaults on a CPU: tokens of context, sequences at the same time, full contexts in the KV cache,
#: and the cache's share of free memory. The user or the model may ask for less context.
_CONTEXT = 8192
_SLOTS = 32
_CONTEXTS = 8
_KV_SHARE = 0.25
_LEVELS = ("warning", "info", "debug")

#: SGLang's arguments that follow from our flags, or that nobody may change ("").
_OURS = {
    "model_path": "MODEL",
    "tokenizer_path": "--model-config",
    "context_length": "--context-length",
    "tp_size": "--tensor-parallel-size",
    "nnodes": "--num-nodes",
    "node_rank": "--node-rank",
    "dist_init_addr": "--dist-init-addr",
    "skip_tokenizer_init": "",
    "incremental_streaming_output": "",
    "tokenizer_worker_num": "",
    "detokenizer_worker_num": "",
    "custom_sigquit_handler": "",
    "config": "--extra-engine-args",
}
_UNSET = object()
_SEE = "`sglang serve --help` lists them."


def prepare(spec: EngineSpec) -> bool:
    """Prepares the environment before SGLang is imported. Returns whether it computes on the CPU.

    Raises UsageError.
    """
    if spec.parallel.leader:
        rendezvous_address(spec.parallel)
    import torch

    if not torch.accelerator.is_available():
        os.environ.setdefault("SGLANG_USE_CPU_ENGINE", "1")
    is_cpu = os.environ.get("SGLANG_USE_CPU_ENGINE") == "1"
    if is_cpu:
        # Threads that spin while they wait take cores from other processes. On two busy cores the
        # demo model fell from 170 to 10 tokens/s.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Log probabilities are the model's own, as in other engines: the temperature is not in them.
    os.environ.setdefault("SGLANG_RETURN_ORIGINAL_LOGPROB", "1")
    # The context includes the margin, which no sequence uses.
    os.environ.setdefault("SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN", "1")
    return is_cpu


def server_args(spec: EngineSpec, *, is_cpu: bool) -> dict[str, Any]:
    """Returns the arguments of SGLang's `Engine`.

    Raises UsageError for an unknown argument, and for an argument that follows from our flags.
    """
    own = _own(spec)
    _share_out(spec.parallel, own.get("pp_size", 1), is_cpu=is_cpu)
    return {**defaults(spec, is_cpu=is_cpu), **own}


def _share_out(parallel: Parallel, stages: int, *, is_cpu: bool) -> None:
    """Raises UsageError if this machine has too few devices.

    On a CPU it assigns cores to each rank.
    """
    import torch

    cores = own_cores() if is_cpu else []
    devices = len(cores) if is_cpu else torch.accelerator.device_count()
    here = ranks_here(parallel, devices, "CPU core" if is_cpu else "GPU", stages)
    if is_cpu and parallel.tensor > 1:
        os.environ.setdefault("SGLANG_CPU_OMP_THREADS_BIND", shared_cores(cores, here))


def defaults(spec: EngineSpec, *, is_cpu: bool) -> dict[str, Any]:
    """Returns our defaults."""
    context = spec.context_length
    if is_cpu and context is None:
        context = min(_CONTEXT, spec.model_context or _CONTEXT)
    made: dict[str, Any] = {
        "model_path": spec.model,
        "skip_tokenizer_init": True,
        "incremental_streaming_output": True,
        "log_level": _LEVELS[min(spec.verbosity, 2)],
        "tp_size": spec.parallel.tensor,
        "nnodes": spec.parallel.nodes,
        "node_rank": spec.parallel.rank,
    }
    if spec.parallel.leader:
        made["dist_init_addr"] = spec.parallel.leader
    if context is not None:
        made["context_length"] = context + _MARGIN
    if spec.slots is not None:
        made["max_running_requests"] = spec.slots
    return {**_cpu_defaults(spec, context), **made} if is_cpu and context else made


def _cpu_defaults(spec: EngineSpec, context: int) -> dict[str, Any]:
    """Returns defaults for the CPU, because SGLang's are for GPUs.

    float32 is fast on a CPU without AMX.
    """
    import psutil

    free = psutil.virtual_memory().available * _KV_SHARE
    affordable = int(free) // max(2 * spec.kv_bytes_per_token // spec.parallel.tensor, 1)
    contexts = min(_CONTEXTS, max(1, affordable // context))
    return {
        "device": "cpu",
        "dtype": "float32",
        "attention_backend": "torch_native",
        "sampling_backend": "pytorch",
        "disable_cuda_graph": True,
        "sleep_on_idle": True,  # an idle scheduler would keep a core busy
        "max_running_requests": _SLOTS,
        "max_total_tokens": contexts * (context + _MARGIN),
    }


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"SGLang refuses its options: {message.rstrip('.')}.")


def _own(spec: EngineSpec) -> dict[str, Any]:
    """Returns the user's options after `--`, merged over --extra-engine-args."""
    from sglang.srt.server_args import ServerArgs

    parser = _Parser(prog="sglang", add_help=False, allow_abbrev=False)
    ServerArgs.add_cli_args(parser)
    fields: tuple[str, ...] = ServerArgs.__struct_fields__
    extra = {name.replace("-", "_"): value for name, value in spec.extra.items()}
    for name in extra:
        if name not in fields:
            raise unknown_argument("sglang", name, fields, see=_SEE)
    check_values("sglang", extra, value_types(parser._actions))
    # Existing attributes keep their value unless an option was given.
    unset = argparse.Namespace(**dict.fromkeys([*fields, "config"], _UNSET))
    for action in parser._actions:
        action.required = False
    read, unknown = parser.parse_known_args(spec.options, unset)
    if unknown:
        flags = [flag for action in parser._actions for flag in action.option_strings]
        raise unknown_option("sglang", unknown[0].partition("=")[0], flags, see=_SEE)
    own = {**extra, **{k: v for k, v in vars(read).items() if v is not _UNSET}}
    _check_ours(own)
    return own


def _check_ours(own: Iterable[str]) -> None:
    for name in own:
        if name in _OURS:
            ours = _OURS[name]
            raise UsageError(
                f"The sglang option {name} follows from {ours}. Set it there, before `--`."
                if ours
                else f"The sglang option {name} is set by dynemo-run. Remove it."
            )
