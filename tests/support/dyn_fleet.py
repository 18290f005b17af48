"""Starts workers and ingresses of one pool as processes."""

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any

from support.command import COMMAND, Server, children, serving
from support.waiting import wait_until

_names = count(1)


@dataclass
class Worker:
    """A running `dynemo-run in=dyn://...`."""

    process: "subprocess.Popen[bytes]"
    lines: list[str] = field(default_factory=list)  #: its standard error

    @property
    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.lines
        return any("· engine" in line for line in self.lines)

    def host_pids(self) -> list[int]:
        return children(self.process.pid)

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kills it with SIGKILL."""
        self.process.kill()
        self.process.wait(5)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.send_signal(signal.SIGCONT)
            try:
                self.process.wait(8)
            except subprocess.TimeoutExpired:
                self.kill()


class Fleet:
    """The processes of one pool, made by `fleet`.

    `flags` are the flags for discovery and for the request plane.
    """

    def __init__(self, stack: ExitStack, flags: Sequence[str], name: str = "") -> None:
        self.address = f"dyn://{name or f'pool{next(_names)}'}"
        self._stack = stack
        self._flags = flags
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, *args: str | Path, delay_ms: float = 20, inside: Sequence[str] = ()) -> Worker:
        """Starts a worker, of the echo engine unless `args` name another.

        `inside` is a command that runs the worker.
        """
        words: list[str | Path] = list(args)
        if not any(f"{word}".startswith("out=") for word in words):
            words.insert(0, "out=echo")
        process = subprocess.Popen(
            [*inside, *COMMAND, f"in={self.address}", *self._flags, *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "DYNEMO_TOKEN_ECHO_DELAY_MS": str(delay_ms)},
        )
        worker = Worker(process)
        self._processes.append(process)
        reader = Thread(target=_read, args=(worker,), daemon=True)
        reader.start()
        self._stack.callback(reader.join, 5)
        self._stack.callback(worker.close)
        return worker

    def workers(self, number: int, *args: str | Path, delay_ms: float = 20) -> list[Worker]:
        """Starts workers, and waits until all of them are registered."""
        started = [self.start(*args, delay_ms=delay_ms) for _ in range(number)]
        for worker in started:
            wait_until(lambda worker=worker: worker.is_ready, 15)
        return started

    def ingress(self, *args: str, out: str = "", workers: int = 0) -> Server:
        """Starts an ingress, and waits until it has found this number of workers."""
        out = out or self.address
        server = self._stack.enter_context(serving(f"out={out}", "-v", *self._flags, *args))
        self._processes.append(server.process)
        wait_until(lambda: come(server) >= workers)
        return server

    def stop(self) -> None:
        """Stops all processes at once, because one after the other would take longer."""
        for process in self._processes:
            process.terminate()
            process.send_signal(signal.SIGCONT)


@contextmanager
def fleet(flags: Sequence[str]) -> Iterator[Fleet]:
    """Returns an empty fleet. At the end it stops all processes of the fleet."""
    with ExitStack() as stack:
        it = Fleet(stack, flags)
        try:
            yield it
        finally:
            it.stop()


def come(server: Server) -> int:
    """Returns how many instances an ingress has found, including lost ones."""
    return sum(" is available" in line for line in server.lines)


def gone(server: Server) -> int:
    return sum(" has gone" in line for line in server.lines)


def present(server: Server) -> int:
    """Returns how many instances an ingress knows now.

    A slow worker may lose its lease and take another one.
    """
    return come(server) - gone(server)


def listening(pid: int) -> set[int]:
    """Returns the TCP ports on which a process listens."""
    links = (os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir())
    inodes = {name[8:-1] for name in links if name.startswith("socket:[")}
    tables = [Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6")]
    rows = [row.split() for table in tables for row in table.splitlines()[1:]]
    return {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and row[9] in inodes}


def get(url: str) -> tuple[int, dict[str, str], Any]:
    """Sends a GET request. Returns the status, the headers and the body."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, dict(answer.headers), json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), json.load(error)


def engine_load(server: Server) -> float:
    """Returns how many sequences the server's engines run or queue, by their last report."""
    names = ("dynemo_engine_running{", "dynemo_engine_waiting{")
    return sum(value for name, value in scrape(server).items() if name.startswith(names))


def scrape(server: Server) -> dict[str, float]:
    """Returns the server's metrics by name and labels."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def _read(worker: Worker) -> None:
    assert worker.process.stderr is not None
    with worker.process.stderr as stderr:
        worker.lines.extend(line.decode().rstrip() for line in stderr)
