"""A network that can lose a host silently: a bridge, and a namespace for each host.

When a port of the bridge goes down, no connection closes. Packets are lost, and both ends wait.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count

import pytest

from support.etcd_server import EtcdServer
from support.free_ports import free_port
from support.nats_process import NatsProcess


@dataclass(frozen=True)
class Host:
    """A namespace with its own address. `inside` is a command that runs another one there."""

    inside: tuple[str, ...]
    port: str  #: its port on the bridge

    def cut(self) -> None:
        _ip("link", "set", self.port, "down")

    def heal(self) -> None:
        _ip("link", "set", self.port, "up")


class Network:
    """The network, made by `network`.

    The test's side of the bridge has `address`. The servers of `flags` run there.
    """

    def __init__(self, stack: ExitStack, name: str, subnet: str) -> None:
        self.address = f"{subnet}.1"
        self.flags: list[str] = []
        self.etcd: EtcdServer
        self.nats: NatsProcess
        self._stack = stack
        self._name = name
        self._subnet = subnet
        self._numbers = count(2)

    def start_servers(self) -> None:
        """Starts etcd and NATS at the bridge's address."""
        port = free_port()
        self.etcd = EtcdServer(listen_client_urls=f"http://{self.address}:{port}")
        self._stack.callback(self.etcd.close)
        self.etcd.start()
        self.nats = NatsProcess("-a", "0.0.0.0")
        self._stack.callback(self.nats.stop)
        self.etcd.wait()
        where = ["--etcd", f"{self.address}:{port}"]
        where += ["--nats", f"nats://{self.address}:{self.nats.port}"]
        self.flags = [*where, "--lease-ttl", "5"]

    def host(self) -> Host:
        number = next(self._numbers)
        name, port, inner = (f"{self._name}{kind}{number}" for kind in "npi")
        _ip("netns", "add", name)
        self._stack.callback(_ip, "netns", "del", name)
        _ip("link", "add", port, "type", "veth", "peer", "name", inner, "netns", name)
        self._stack.callback(_remove, port)
        _ip("link", "set", port, "master", self._name, "up")
        _ip("-n", name, "address", "add", f"{self._subnet}.{number}/24", "dev", inner)
        _ip("-n", name, "link", "set", inner, "up")
        _ip("-n", name, "link", "set", "lo", "up")
        return Host(("ip", "netns", "exec", name), port)


@contextmanager
def network() -> Iterator[Network]:
    """Makes a network with etcd and NATS on the test's side.

    It skips the test if this system does not allow namespaces.
    """
    if shutil.which("ip") is None:
        pytest.skip("`ip` of iproute2 is not installed; it makes network namespaces")
    if os.geteuid() != 0:
        pytest.skip("only root can make network namespaces")
    if shutil.which("etcd") is None:
        pytest.skip("etcd is not installed")
    name = f"dy{os.getpid():x}"  # names of interfaces have at most 15 characters
    with ExitStack() as stack:
        try:
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
            _ip("link", "add", name, "type", "bridge")
            stack.callback(_remove, name)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.strip()}")
        it = Network(stack, name, f"198.18.{os.getpid() % 256}")
        _ip("address", "add", f"{it.address}/24", "dev", name)
        _ip("link", "set", name, "up")
        it.start_servers()
        yield it


def _remove(link: str) -> None:
    """Deletes a link, unless the namespace of its other end has deleted it."""
    with suppress(subprocess.CalledProcessError):
        _ip("link", "del", link)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=10)
