"""A real etcd on free ports, with its data in a temporary folder."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

#: etcd waits for the disk with each write, which on a busy one takes seconds.
_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class EtcdServer:
    """`options` are flags of etcd's own, besides those that it always needs."""

    def __init__(self, scheme: str = "http", **options: str) -> None:
        self._scheme = scheme
        self._options = {name.replace("_", "-"): value for name, value in options.items()}
        self.data = Path(tempfile.mkdtemp(prefix="dynemo-etcd-", dir=_MEMORY))
        self._port, self._peer_port = _free_ports(2)
        self.address = f"127.0.0.1:{self._port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        client, peer = f"{self._scheme}://{self.address}", f"http://127.0.0.1:{self._peer_port}"
        options = {
            "data-dir": self.data,
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "heartbeat-interval": 20,  # a second sooner than by default
            "election-timeout": 200,
            "log-level": "error",
            "logger": "zap",
            **self._options,
        }
        self.process = subprocess.Popen(
            ["etcd", *[f"--{name}={value}" for name, value in options.items()]],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait(self) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self._port), 1).close()
                return
            time.sleep(0.02)
        raise AssertionError("etcd did not start")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def forget(self) -> None:
        """Loses the data of a server that was killed."""
        shutil.rmtree(self.data)
        self.data.mkdir(mode=0o700)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.data, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for sock in sockets:
        sock.bind(("127.0.0.1", 0))
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def etcd_running() -> Iterator[EtcdServer]:
    """The body of a fixture."""
    if shutil.which("etcd") is None:
        pytest.skip("etcd is not installed")
    server = EtcdServer()
    try:
        server.start()
        server.wait()
        yield server
    finally:
        server.close()
