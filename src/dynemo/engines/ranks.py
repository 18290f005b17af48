"""Distributes an engine's ranks over the devices of one machine."""

import os
import sys

from dynemo.errors import UsageError
from dynemo.messages.spec import Parallel


def ranks_here(parallel: Parallel, devices: int, what: str, times: int = 1) -> int:
    """Returns the number of ranks on this node.

    Each of `times` parts of the model, such as pipeline stages, takes as many ranks as tensor
    parallelism has. Raises UsageError.
    """
    ranks = parallel.tensor * times
    if ranks > 1 and ranks % parallel.nodes:
        raise UsageError(
            f"--tensor-parallel-size {parallel.tensor} cannot be divided among --num-nodes "
            f"{parallel.nodes}. Use a multiple of {parallel.nodes}."
        )
    here = max(1, ranks // parallel.nodes)
    if not devices:
        raise UsageError(
            f"This build of the engine needs a {what}, but finds none. Check the driver, or "
            "install the build for the CPU."
        )
    if here > devices:
        raise UsageError(
            f"--tensor-parallel-size {parallel.tensor} needs {here} {what}s on this machine, but "
            f"it has {devices}. Use a smaller size."
        )
    return here


def own_cores() -> list[int]:
    """Returns the CPU cores that this process may use."""
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))  # macOS does not bind processes to cores


def shared_cores(cores: list[int], ranks: int) -> str:
    """Returns the cores of each rank in the syntax of the engines: `0,1|2,3`."""
    each = len(cores) // ranks
    groups = (cores[rank * each : (rank + 1) * each] for rank in range(ranks))
    return "|".join(",".join(map(str, group)) for group in groups)
