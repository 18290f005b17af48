"""What cleans up after an engine of many processes, however it ends.

An engine's own processes share a group with the host, and the runner kills that group. Two things
are left that only somebody outside of them can do.
"""

import os
import subprocess
import sys
from multiprocessing import resource_tracker

#: A little longer than the host waits, which ends things in order if it lives.
_END_WITH_RUNNER = 'cat > /dev/null; sleep 5; rm -rf "$1"; kill -9 0'
_TRACK = "import os; os.fork() and os._exit(0); "
_TRACK += "from multiprocessing.resource_tracker import main; main({})"


def start_guard(workdir: str) -> None:
    """Ends the group once the runner has gone, even if the host has gone before it.

    Standard input is the pipe that the runner holds.
    """
    subprocess.Popen(
        ["sh", "-c", _END_WITH_RUNNER, "sh", workdir],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def start_tracker() -> None:
    """Starts `multiprocessing`'s resource tracker in a group of its own, and as nobody's child.

    It removes shared memory and semaphores that nobody has removed once all who could have ended,
    and so must not be killed with them, by the runner or by an engine that kills all its children.
    Call it before anything uses `multiprocessing`.
    """
    read, write = os.pipe()
    subprocess.run(
        [sys.executable, "-B", "-c", _TRACK.format(read)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[read],
        process_group=0,
        check=True,
    )
    os.close(read)
    tracker = resource_tracker._resource_tracker
    tracker._fd = write  # type: ignore[attr-defined]
