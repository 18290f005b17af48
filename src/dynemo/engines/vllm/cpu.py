"""Configures vLLM for a machine on which it computes with the CPU."""

import os
from typing import Any

from dynemo.engines.ranks import own_cores, ranks_here, shared_cores
from dynemo.messages.spec import Parallel

_IN_CORE = "vllm.v1.executor.uniproc_executor.UniProcExecutor"


def free_memory() -> int | None:
    """Returns the free memory in bytes if vLLM computes on the CPU, otherwise None."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return None
    from vllm.utils.cpu_resource_utils import get_memory_node_info, get_visible_memory_node

    nodes = get_visible_memory_node()
    return int(get_memory_node_info(nodes[0]).available_memory)


def check_devices(parallel: Parallel, times: int, *, is_cpu: bool) -> None:
    """Raises UsageError if this machine has too few devices. `times` is as for `ranks_here`.

    On a CPU it assigns cores to each rank. vLLM would assign a NUMA node to each rank, but most
    machines have only one.
    """
    import torch

    cores = own_cores() if is_cpu else []
    devices = len(cores) if is_cpu else torch.accelerator.device_count()
    here = ranks_here(parallel, devices, "CPU core" if is_cpu else "GPU", times)
    if is_cpu and here > 1:
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", shared_cores(cores, here))


def compute_in_core(args: Any) -> None:
    """Runs a model that uses one rank in the engine core's own process, as on a GPU.

    On a CPU vLLM starts a worker for it. Then core and worker wait for each other in loops that
    spin. Each takes a core of the machine, which delays the first token of an answer. vLLM only
    does so to pin OpenMP's threads, which is done here by vLLM's own rule. If the user chooses the
    executor or pins the threads, vLLM's own behaviour stays.
    """
    chosen = args.distributed_executor_backend or os.environ.get("VLLM_CPU_OMP_THREADS_BIND")
    sizes = (args.tensor_parallel_size, args.pipeline_parallel_size, args.data_parallel_size)
    if chosen or max(*sizes, args.nnodes) > 1:
        return
    from vllm.utils.cpu_resource_utils import get_allowed_cpu_list, get_visible_memory_node

    node = get_visible_memory_node()[0]
    cpus = [cpu for cpu in get_allowed_cpu_list() if cpu.numa_node == node]
    if not cpus:
        return
    reserved = int(os.environ.get("VLLM_CPU_NUM_OF_RESERVED_CPU") or 1)
    threads = max(1, len({cpu.physical_core for cpu in cpus}) - reserved)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ.setdefault("OMP_PLACES", f"{{{','.join(str(cpu.id) for cpu in cpus)}}}")
    os.environ.setdefault("OMP_PROC_BIND", "true")
    args.distributed_executor_backend = _IN_CORE
