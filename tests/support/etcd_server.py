"""A real etcd on free ports, with its data in a temporary folder."""

import functools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from dynemo.planes.discovery.etcd.connection import EtcdConnection, EtcdSettings
from support.free_ports import free_port

_MEMORY = Path("/dev/shm")
_ROOM = 1 << 30  # etcd allocates 128 MB at once; a container may have 64 MB


def _folder() -> str | None:
    """Returns a folder in memory for the data, if it has room.

    etcd waits for the disk with each write, which takes seconds on a busy disk.
    """
    has_room = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ROOM
    return str(_MEMORY) if has_room else None


@functools.cache
def _hurry() -> tuple[str, ...]:
    """Returns the flag that stops etcd from waiting for the disk. etcd 3.5 and later have it."""
    said = subprocess.run(["etcd", "--help"], capture_output=True, text=True, check=False)
    flag = "--unsafe-no-fsync"
    return (flag,) if flag in said.stdout + said.stderr else ()


class EtcdServer:
    """An etcd process. `options` are extra flags of etcd."""

    def __init__(self, scheme: str = "http", **options: str) -> None:
        self._scheme = scheme
        self._options = {name.replace("_", "-"): value for name, value in options.items()}
        self.data = Path(tempfile.mkdtemp(prefix="dynemo-etcd-", dir=_folder()))
        self._port, self._peer_port, self._health_port = free_port(), free_port(), free_port()
        self.address = f"127.0.0.1:{self._port}"
        self._peer = f"http://127.0.0.1:{self._peer_port}"
        self.process: subprocess.Popen[bytes] | None = None

    def join(self, members: "list[EtcdServer]") -> None:
        """Makes it one of these members, before it starts.

        Members have longer timeouts, so that only the test causes an election.
        """
        named = [f"m{number}={member._peer}" for number, member in enumerate(members)]
        self._options["name"] = f"m{members.index(self)}"
        self._options["initial-cluster"] = ",".join(named)
        self._options |= {"heartbeat-interval": "100", "election-timeout": "1000"}

    def start(self) -> None:
        client, peer = f"{self._scheme}://{self.address}", self._peer
        options = {
            "data-dir": self.data,
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "listen-metrics-urls": f"http://127.0.0.1:{self._health_port}",
            "heartbeat-interval": 20,  # it is ready a second sooner than by default
            "election-timeout": 200,
            "log-level": "error",
            "logger": "zap",
            **self._options,
        }
        self.process = subprocess.Popen(
            ["etcd", *[f"--{name}={value}" for name, value in options.items()], *_hurry()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait(self) -> None:
        """Waits until etcd serves. It accepts connections earlier than that."""
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            if self._is_healthy():
                return
            time.sleep(0.02)
        raise AssertionError("etcd did not start")

    def _is_healthy(self) -> bool:
        with closing(HTTPConnection("127.0.0.1", self._health_port, timeout=2)) as connection:
            try:
                connection.request("GET", "/health")
                return connection.getresponse().status == 200
            except (OSError, HTTPException):
                return False

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def forget(self) -> None:
        """Deletes the data of a killed server."""
        shutil.rmtree(self.data)
        self.data.mkdir(mode=0o700)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.data, ignore_errors=True)


def etcd_running(**options: str) -> Iterator[EtcdServer]:
    """Starts a server, as the body of a fixture. `options` are those of `EtcdServer`."""
    if shutil.which("etcd") is None:
        pytest.skip("etcd is not installed")
    server = EtcdServer(**options)
    try:
        server.start()
        server.wait()
        yield server
    finally:
        server.close()


async def require_root(settings: EtcdSettings, password: str) -> None:
    """Makes etcd's root user, and turns authentication on."""
    connection = EtcdConnection(settings)
    rpc = connection.rpc
    try:
        for method, request in (
            ("UserAdd", rpc.AuthUserAddRequest(name="root", password=password)),
            ("UserGrantRole", rpc.AuthUserGrantRoleRequest(user="root", role="root")),
            ("AuthEnable", rpc.AuthEnableRequest()),
        ):
            await connection.call("AuthStub", method, request, seconds=10)
    finally:
        await connection.close()
