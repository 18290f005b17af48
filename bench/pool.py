"""etcd and nats-server for one measurement, and what stands on them: all on free local ports."""

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

    @property
    def flags(self) -> list[str]:
        return ["--etcd", self.etcd, "--nats", f"nats://{self.nats}"]


@contextmanager
def planes() -> Iterator[Planes]:
    """Both servers, empty. Raises UsageError where one of them is not installed."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        addresses = []
        for kind in (ETCD, NATS):
            server = Server(kind, Path(folder), port := _free_port())
            server.start(server.find())
            stack.callback(server.stop)
            addresses.append(f"{HOST}:{port}")
        yield Planes(*addresses)


@contextmanager
def worker(
    planes: Planes,
    model: Path | None,
    *words: str,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Served]:
    """A registered worker. It has no port."""
    line = [f"in={POOL}", *words, *planes.flags, *named(model, options)]
    with runner(line, _POOL, environment or {}) as (_, pid):
        yield Served(0, pid)


@contextmanager
def ingress(planes: Planes, *words: str) -> Iterator[Served]:
    """An ingress that has found a worker."""
    line = ["in=http", f"out={POOL}", "--http-port", "0", *words, *planes.flags]
    with runner(line, URL, {}) as (found, pid):
        served = Served(int(found[1]), pid)
        await_health(served.port)
        yield served


def await_health(port: int) -> None:
    """Returns once a request would be served."""
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        connection = HTTPConnection(HOST, port, timeout=5)
        connection.request("GET", "/health")
        status = connection.getresponse().status
        connection.close()
        if status == 200:
            return
        time.sleep(0.005)
    raise RuntimeError(f"the ingress found no worker in {_READY_SECONDS:g} s")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
