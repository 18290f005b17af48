"""Cleans up after an engine with many processes, however it ends.

An engine's processes are in the host's process group, and the runner kills that group. Two tasks
remain for processes outside of the group.
"""

import os
import subprocess
import sys
from multiprocessing import resource_tracker

#: This is a little longer than the host waits, which cleans up in order if it is alive.
_END_WITH_RUNNER = 'cat > /dev/null; sleep 5; rm -rf "$1"; kill -9 0'
_TRACK = "import os; os.fork() and os._exit(0); "
_TRACK += "from multiprocessing.resource_tracker import main; main({})"


def start_guard(workdir: str) -> None:
    """Starts a process that kills the group after the runner has ended, even if the host has ended.

    Standard input is the pipe that the runner holds.
    """
    subprocess.Popen(
        ["sh", "-c", _END_WITH_RUNNER, "sh", workdir],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def start_tracker() -> None:
    """Starts `multiprocessing`'s resource tracker, detached and in its own process group.

    The tracker removes leaked shared memory and semaphores after all their users have ended. So it
    must survive when the runner kills the group, or when an engine kills its children. Call this
    before any use of `multiprocessing`.
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
