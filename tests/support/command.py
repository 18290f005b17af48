"""Starts `dynemo-run` as a user starts it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

COMMAND = [sys.executable, "-m", "dynemo"]


def run(
    *args: str | Path, stdin: str | bytes = "", timeout: float = 15, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Runs the command to its end. Returns standard output and standard error as text."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        [*COMMAND, *map(str, args)],
        input=data,
        capture_output=True,
        timeout=timeout,
        env={**os.environ, **environment},
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


@dataclass
class Server:
    """A running `dynemo-run in=http`."""

    process: "subprocess.Popen[bytes]"
    url: str
    lines: list[str] = field(default_factory=list)  #: its standard error

    @property
    def api(self) -> str:
        return f"{self.url}/v1"

    def host_pids(self) -> list[int]:
        """Returns the pids of its engine hosts, from the process table."""
        return children(self.process.pid)

    def end(self, number: int = signal.SIGTERM, timeout: float = 10) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout)


@contextmanager
def serving(*args: str | Path, timeout: float = 15, **environment: str) -> Iterator[Server]:
    """Starts `in=http` on a free port and waits until it is ready. Stops it at the end."""
    process = subprocess.Popen(
        [*COMMAND, "in=http", "--http-port", "0", *map(str, args)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    lines: list[str] = []
    assert process.stderr is not None
    stderr = process.stderr

    def read() -> None:
        lines.extend(line.decode().rstrip() for line in stderr)

    reader = Thread(target=read, daemon=True)
    reader.start()
    try:
        yield Server(process, _url(process, lines, timeout), lines)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        reader.join(5)
        stderr.close()


@contextmanager
def follower_rank(*args: str | Path, **environment: str) -> "Iterator[subprocess.Popen[str]]":
    """Runs `in=none`, and kills it at the end."""
    process = subprocess.Popen(
        [*COMMAND, "in=none", *map(str, args)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _url(process: "subprocess.Popen[bytes]", lines: list[str], timeout: float) -> str:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        for line in list(lines):
            if found := re.search(r"https?://\S+", line):
                return found[0]
        if process.poll() is not None:
            break
        time.sleep(0.01)
    raise AssertionError(f"did not start: {lines}")


def children(pid: int) -> list[int]:
    """Returns the pids of the direct children that are alive."""
    listing = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,stat="], capture_output=True, text=True, check=True
    ).stdout
    rows = (line.split() for line in listing.splitlines())
    return [int(p) for p, parent, stat in rows if int(parent) == pid and stat[0] != "Z"]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def group_members(leader: int) -> dict[int, str]:
    """Returns the live processes of a group: their pids and command lines."""
    listing = subprocess.run(
        ["ps", "-eo", "pid=,pgid=,stat=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = (line.split(None, 3) for line in listing.splitlines())
    return {
        int(pid): words
        for pid, group, stat, words in rows
        if int(group) == leader and stat[0] != "Z"
    }
