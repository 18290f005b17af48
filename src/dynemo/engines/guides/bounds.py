"""The bounds of a process that judges guides. It ends when it exceeds one of them."""

import os
import resource
import signal
import sys

from dynemo import limits


def limit_memory() -> None:
    """Limits the memory and the call stack. Call it when everything is loaded.

    The call stack is smaller than in an engine's threads, so that a guide that passes here is not
    nested too deeply there. macOS ignores the limit of memory.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _set_soft(resource.RLIMIT_STACK, limits.GUIDE_STACK_BYTES)
    if sys.platform == "linux":
        _set_soft(resource.RLIMIT_AS, address_space() + limits.GUIDE_MEMORY_BYTES)


def limit_cpu(seconds: float) -> None:
    """Ends the process by SIGPROF when it has used so much more CPU time; 0 removes the limit."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def extend_cpu(seconds: float) -> None:
    """Sets a limit of `limit_cpu` to so much from now. Does nothing if no limit is set."""
    if signal.getitimer(signal.ITIMER_PROF)[0]:
        limit_cpu(seconds)


def address_space() -> int:
    """The bytes of this process's address space, or 0 where that is unknown."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _set_soft(name: int, value: int) -> None:
    _, hard = resource.getrlimit(name)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(name, (value, hard))
