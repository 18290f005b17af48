"""etcd, nats-server and the processes that use them for a measurement, on free local ports."""

import json
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.servers import URL, Served, named, runner
from dynemo.commands.server import HOST, Server
from dynemo.commands.services import ETCD, NATS

POOL = "dyn://bench"
_READY_SECONDS = 20.0
_POOL = re.compile(re.escape(POOL).encode())


@dataclass(frozen=True)
class Planes:
    etcd: str  #: HOST:PORT
    nats: str
    nats_pid: int

    @property
    def flags(self) -> list[str]:
        return ["--etcd", self.etcd, "--nats", f"nats://{self.nats}"]


@contextmanager
def planes() -> Iterator[Planes]:
    """Starts both servers, empty. Raises UsageError if one of them is not installed."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        etcd, nats = (Server(kind, Path(folder), _free_port()) for kind in (ETCD, NATS))
        for server in (etcd, nats):
            server.start(server.find())
            stack.callback(server.stop)
        one, other = etcd.state(), nats.state()
        yield Planes(f"{HOST}:{one.port}", f"{HOST}:{other.port}", other.pid)


@contextmanager
def worker(
    planes: Planes,
    model: Path | None,
    *arguments: str,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Served]:
    """Starts a registered worker, which has no port."""
    line = [f"in={POOL}", *arguments, *planes.flags, *named(model, options)]
    with runner(line, _POOL, environment or {}) as (_, pid):
        yield Served(0, pid)


@contextmanager
def ingress(planes: Planes, *arguments: str, instances: int = 1) -> Iterator[Served]:
    """Starts an ingress, and waits until it knows this many instances."""
    line = ["in=http", f"out={POOL}", "--http-port", "0", *arguments, *planes.flags]
    with runner(line, URL, {}) as (found, pid):
        served = Served(int(found[1]), pid)
        _await_instances(served.port, instances)
        yield served


def _await_instances(port: int, instances: int) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while (known := _known(port)) < instances:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the ingress knows {known} of {instances} instances")
        time.sleep(0.005)


def _known(port: int) -> int:
    """Returns the number of instances in the health report."""
    connection = HTTPConnection(HOST, port, timeout=10)
    connection.request("GET", "/health")
    report = json.loads(connection.getresponse().read())
    connection.close()
    return sum(len(model["instances"]) for model in report["models"])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
