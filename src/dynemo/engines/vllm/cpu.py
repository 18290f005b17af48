"""What vLLM needs to be told of a machine that it computes on with the CPU."""

import os
from typing import Any

from dynemo.engines.ranks import own_cores, ranks_here, shared_cores
from dynemo.messages.spec import Parallel

_IN_CORE = "vllm.v1.executor.uniproc_executor.UniProcExecutor"


def free_memory() -> int | None:
    """Of a CPU that vLLM computes on, in bytes; None where it computes on anything else."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return None
    from vllm.utils.cpu_resource_utils import get_memory_node_info, get_visible_memory_node

    nodes = get_visible_memory_node()
    return int(get_memory_node_info(nodes[0]).available_memory)


def check_devices(parallel: Parallel, times: int, *, is_cpu: bool) -> None:
    """Raises UsageError where this machine has too few; `times` as for `ranks_here`. On a CPU each
    rank gets cores of its own: vLLM would give each a NUMA node, which most machines have one of.
    """
    import torch

    cores = own_cores() if is_cpu else []
    devices = len(cores) if is_cpu else torch.accelerator.device_count()
    here = ranks_here(parallel, devices, "CPU core" if is_cpu else "GPU", times)
    if is_cpu and here > 1:
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", shared_cores(cores, here))


def compute_in_core(args: Any) -> None:
    """Lets a model that is not shared out run in the engine core's own process, as on a GPU.

    On a CPU vLLM starts a worker for it, and then core and worker wait for each other in loops
    that spin: a core of the machine each, which the first token of an answer then waits for. It
    does so only to tell OpenMP where to run, which is told here, by its own rule. Whoever chooses
    the executor or binds the threads gets what vLLM makes of it.
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
