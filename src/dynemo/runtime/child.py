"""Starting and ending the engine host's process. Needs no event loop: a run starts it first of all,
and loads what only the runner needs while the engine loads."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from msgspec import json, structs

from dynemo.errors import UsageError
from dynemo.messages import EngineSpec

#: `-P`, and no site of the runner: the host finds our package, the engine and `msgspec`.
_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from dynemo.engines.host import start; start(sys.argv[1], int(sys.argv[2]))"
)


@dataclass(frozen=True)
class Child:
    """A host that has been started and not been heard from yet."""

    process: "subprocess.Popen[bytes]"
    sock: socket.socket
    workdir: Path


def spawn(spec: EngineSpec, python: str = sys.executable) -> Child:
    """Starts an engine host; returns at once. `spec.workdir` becomes a new private folder."""
    workdir = Path(tempfile.mkdtemp(prefix="dynemo-", dir=_temporary()))  # 0700
    spec = structs.replace(spec, workdir=str(workdir))
    # Only our package goes on the engine interpreter's path, not what else is installed beside it.
    (workdir / "path").mkdir()
    (workdir / "path" / "dynemo").symlink_to(Path(__file__).resolve().parent.parent)
    ours, theirs = socket.socketpair()
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        told = json.encode(spec).decode()
    except UnicodeEncodeError:
        raise UsageError("The model's path or an engine option is not UTF-8; rename it.") from None
    command = [python, "-P", "-c", _START, str(workdir / "path"), told]
    with theirs:
        process = subprocess.Popen(
            [*command, str(theirs.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            env=environment,
        )
    return Child(process, ours, workdir)


def _temporary() -> str:
    """Where a Unix socket's path stays under its limit of some 100 bytes: an engine may name one by
    a UUID, in our folder."""
    usual = tempfile.gettempdir()
    return usual if len(os.fsencode(usual)) <= 50 else "/tmp"


def discard(child: Child) -> None:
    """Ends a child that nobody has connected to."""
    child.sock.close()
    kill(child)


def signal_group(child: Child) -> None:
    """Ends what is left of the child's process group, without waiting for it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS refuses for a zombie
        os.killpg(child.process.pid, signal.SIGKILL)


def kill(child: Child) -> int:
    """Ends what is left of the child's process group, and its folder. The child's exit code."""
    signal_group(child)
    for pipe in (child.process.stdin, child.process.stdout):
        assert pipe is not None
        with contextlib.suppress(OSError):  # the event loop has closed it, cancelled at its start
            pipe.close()
    code = child.process.wait()
    shutil.rmtree(child.workdir, ignore_errors=True)
    return code
