"""Starts and ends the engine host's process. Needs no event loop: a run starts the host first, and
imports the runner's modules while the engine loads."""

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
from dynemo.folders import temporary_folder
from dynemo.messages.spec import EngineSpec

#: `-P`, and without the runner's site: the host finds our package, the engine and `msgspec`.
_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from dynemo.engines.host import start; start(sys.argv[1], int(sys.argv[2]))"
)


@dataclass(frozen=True)
class Child:
    """A host that has been started and has not sent HELLO yet."""

    process: "subprocess.Popen[bytes]"
    sock: socket.socket
    workdir: Path


def spawn(spec: EngineSpec, python: str = sys.executable) -> Child:
    """Starts an engine host and returns at once. `spec.workdir` becomes a new private folder.

    Raises UsageError or OSError, and then leaves nothing behind.
    """
    try:
        workdir = _make_workdir()
    except OSError as error:
        raise _no_room(error) from None
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            spec_file = _prepare(spec, workdir)
            return Child(_launch(spec_file, python, workdir, theirs.fileno()), ours, workdir)
    except BaseException:
        ours.close()
        shutil.rmtree(workdir, ignore_errors=True)
        raise


def _prepare(spec: EngineSpec, workdir: Path) -> Path:
    """Fills the folder. Returns the path of the spec. Raises UsageError."""
    # In a file: all users can read a command line, and an engine's arguments may hold a token.
    spec_file = workdir / "spec.json"
    try:
        # The path of the engine's interpreter gets only our package, not the packages beside it.
        (workdir / "path").mkdir()
        (workdir / "path" / "dynemo").symlink_to(Path(__file__).resolve().parents[2])
        spec_file.write_bytes(json.encode(structs.replace(spec, workdir=str(workdir))))
    except OSError as error:
        raise _no_room(error) from None
    except UnicodeEncodeError:
        raise UsageError(
            "The model's path or an engine option is not UTF-8. Rename it, or set a UTF-8 locale, "
            "such as LC_ALL=C.UTF-8."
        ) from None
    return spec_file


def _no_room(error: OSError) -> UsageError:
    return UsageError(
        f"The engine's temporary files cannot be written: {error.strerror}. Free some space, or "
        "set TMPDIR to another folder."
    )


def _launch(
    spec_file: Path, python: str, workdir: Path, descriptor: int
) -> "subprocess.Popen[bytes]":
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    environment.setdefault("PYTHONIOENCODING", "utf-8:backslashreplace")  # as we read its output
    command = [python, "-P", "-c", _START, str(workdir / "path"), str(spec_file), str(descriptor)]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=[descriptor],
        start_new_session=True,
        env=environment,
    )


def _make_workdir() -> Path:
    """A short path: an engine may put Unix sockets with long names there, and the limit of their
    paths is about 100 bytes."""
    usual = temporary_folder()
    parent = usual if len(os.fsencode(usual)) <= 50 else "/tmp"
    return Path(tempfile.mkdtemp(prefix="dynemo-", dir=parent))  # 0700


def discard(child: Child) -> None:
    """Ends a child that has no connection yet."""
    child.sock.close()
    kill(child)


def signal_group(child: Child) -> None:
    """Kills the rest of the child's process group, without waiting."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS refuses for a zombie
        os.killpg(child.process.pid, signal.SIGKILL)


def kill(child: Child) -> int:
    """Kills the rest of the child's process group and removes its folder. Its exit code."""
    signal_group(child)
    for pipe in (child.process.stdin, child.process.stdout):
        assert pipe is not None
        with contextlib.suppress(OSError):  # a cancelled event loop has closed it already
            pipe.close()
    code = child.process.wait()
    shutil.rmtree(child.workdir, ignore_errors=True)
    return code
