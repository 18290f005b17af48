"""How the ranks of one engine are shared out over one machine."""

import os
import sys

from dynemo.errors import UsageError
from dynemo.messages.spec import Parallel


def ranks_here(parallel: Parallel, devices: int, what: str, times: int = 1) -> int:
    """How many ranks this node has, where each of `times` parts of the model (the stages of a
    pipeline) takes as many as tensor parallelism has. Raises UsageError."""
    ranks = parallel.tensor * times
    if ranks > 1 and ranks % parallel.nodes:
        raise UsageError(
            f"--tensor-parallel-size {parallel.tensor} cannot be shared by --num-nodes "
            f"{parallel.nodes}; give a multiple of it."
        )
    here = max(1, ranks // parallel.nodes)
    if not devices:
        raise UsageError(
            f"The engine's build is for a {what}, and it sees none here: see whether the driver is "
            "there, or install its build for the CPU."
        )
    if here > devices:
        raise UsageError(
            f"--tensor-parallel-size {parallel.tensor} needs {here} {what}s on this machine, "
            f"and it has {devices}."
        )
    return here


def own_cores() -> list[int]:
    """The CPU cores that this process may run on."""
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))  # macOS binds no process to cores


def shared_cores(cores: list[int], ranks: int) -> str:
    """The cores of each rank, as engines read them: `0,1|2,3`."""
    each = len(cores) // ranks
    groups = (cores[rank * each : (rank + 1) * each] for rank in range(ranks))
    return "|".join(",".join(map(str, group)) for group in groups)
