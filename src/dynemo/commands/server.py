"""One server of `dynemo-run services`: a detached process and the file with its pid.

The server inherits a descriptor that holds a lock on the file, so the lock ends with the process,
however that ends. A pid in a locked file is therefore the server's, and an old file does no harm.
"""

import contextlib
import fcntl
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dynemo.errors import DynemoError, UsageError
from dynemo.foreign import decode_any_json
from dynemo.spelling import quoted

HOST = "127.0.0.1"
_START_SECONDS = 15.0
_END_SECONDS = 10.0
_TICK = 0.02


@dataclass(frozen=True)
class ServerKind:
    """The differences between the two servers."""

    name: str  #: the name of its program, too
    port: int  #: the default
    flag: str  #: our flag for another port
    install: str  #: commands that install it
    options: Callable[[int, Path], list[str]]  #: its options, for a port and a data folder
    answers: Callable[[int], bool]  #: whether the server at a port is one of this kind


@dataclass(frozen=True)
class State:
    port: int
    pid: int  #: 0 if we did not start it
    is_answering: bool


class Server:
    """One server, running or not. `folder` has the data, logs and pids of all of them."""

    def __init__(self, kind: ServerKind, folder: Path, port: int) -> None:
        self.kind = kind
        self.data = folder / kind.name
        self.log = folder / f"{kind.name}.log"
        self._file = folder / f"{kind.name}.pid"
        self._port = port

    def state(self) -> State:
        """The present state. A server of ours may run at another port than the wanted one."""
        pid, port = self._read_file() if self._is_locked() else (0, self._port)
        return State(port, pid, self.kind.answers(port))

    def is_ours(self) -> bool:
        return self._is_locked()

    def find(self) -> str:
        """The path of the program. Raises UsageError with the commands that install it."""
        beside = Path(sys.executable).parent / self.kind.name
        found = str(beside) if os.access(beside, os.X_OK) else shutil.which(self.kind.name)
        if found is None:
            raise UsageError(
                f"{self.kind.name} is not installed; run {self.kind.install}. On one host, "
                "--discovery file needs no servers."
            )
        return found

    def check_port(self) -> None:
        """Raises UsageError if another program uses the port."""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, self._port))
            except OSError as error:
                raise UsageError(
                    f"{self.kind.name} cannot use port {self._port} ({error.strerror}); "
                    f"give another one with {self.kind.flag}."
                ) from None

    def start(self, program: str) -> None:
        """Starts the program and returns when it answers. Raises DynemoError if it does not, and
        leaves no process behind."""
        try:
            self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
            log_file = self.log.open("wb")
        except OSError as error:
            raise unusable(self.data, error) from None
        with log_file as log, self._locked() as file:
            process = subprocess.Popen(
                [program, *self.kind.options(self._port, self.data)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data,
                env=_environment(),
                pass_fds=[file.fileno()],
                start_new_session=True,
            )
            try:
                json.dump({"pid": process.pid, "port": self._port}, file)
                file.flush()
                self._await(process)
            except BaseException as error:
                process.kill()
                process.wait()
                if isinstance(error, OSError):
                    raise unusable(self.data, error) from None
                raise

    def stop(self) -> bool:
        """Stops it and waits until it has ended. False if we did not start it."""
        if not self._is_locked():
            return False
        pid, _ = self._read_file()
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not pid:
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            deadline = time.monotonic() + _END_SECONDS
            while time.monotonic() < deadline:
                if not self._is_locked():
                    return True
                time.sleep(_TICK)
        raise DynemoError(
            f"{self.kind.name} (pid {pid or 'unknown'}) does not stop; kill it with `kill -9`."
        )

    def _await(self, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self.kind.answers(self._port):
            code = process.poll()
            if code is not None:
                raise DynemoError(f"{self.kind.name} ended with exit code {code}{self._last()}.")
            if time.monotonic() > deadline:
                raise DynemoError(
                    f"{self.kind.name} has not answered within {_START_SECONDS:g} s{self._last()}."
                )
            time.sleep(_TICK)

    def _last(self) -> str:
        """The last line of the log, as the end of a message."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").split("\n")]
        last = next((line for line in reversed(lines) if line), "")
        return f": {last[:300]} (see {self.log})" if last else ""

    @contextlib.contextmanager
    def _locked(self) -> Iterator[IO[str]]:
        """Locks and empties the file."""
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UsageError(
                    f"{self.kind.name} is being started by another process; wait until it runs."
                ) from None
            file.truncate()
            yield file

    def _is_locked(self) -> bool:
        try:
            with self._file.open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def _read_file(self) -> tuple[int, int]:
        """The pid and the port. Waits a second for a server that is just being started."""
        deadline = time.monotonic() + 1
        while True:
            try:
                content: dict[str, Any] = decode_any_json(self._file.read_text())
                return int(content["pid"]), int(content["port"])
            except (OSError, ValueError, KeyError, TypeError):
                if time.monotonic() > deadline:
                    return 0, self._port
                time.sleep(_TICK)


def unusable(folder: Path, error: OSError) -> UsageError:
    return UsageError(
        f"The servers' data cannot be kept in {quoted(str(folder))}: {error.strerror}. Set "
        "XDG_DATA_HOME to another folder."
    )


def _environment() -> dict[str, str]:
    """Ours, without the variables of etcd, which refuses a setting that is also an option."""
    return {name: text for name, text in os.environ.items() if not name.startswith("ETCD_")}


def etcd_options(port: int, data: Path) -> list[str]:
    client = f"http://{HOST}:{port}"
    peer = f"http://{HOST}:0"  # it has no peers, so any port does
    return [
        f"--data-dir={data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        # Instances come and go for months, and nobody reads the history.
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=10m",
        "--logger=zap",
        "--log-level=warn",
    ]


def etcd_answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/health")
        answer = decode_any_json(connection.getresponse().read(1000))
        return str(answer["health"]) == "true"
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return False
    finally:
        connection.close()


def nats_options(port: int, data: Path) -> list[str]:
    return ["--addr", HOST, "--port", str(port), "--name", "dynemo-run", "-sd", str(data)]


def nats_answers(port: int) -> bool:
    """NATS sends its first line without being asked."""
    try:
        with socket.create_connection((HOST, port), 2) as connection:
            return connection.recv(6).startswith(b"INFO ")
    except OSError:
        return False
