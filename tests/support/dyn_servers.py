"""etcd and NATS for the tests of a module."""

from dataclasses import dataclass

from support.etcd_server import EtcdServer
from support.nats_process import NatsProcess

#: Seconds until a worker's lease expires.
LEASE_TTL = 2


@dataclass(frozen=True)
class Servers:
    etcd: EtcdServer
    nats: NatsProcess

    @property
    def flags(self) -> list[str]:
        """Returns the flags of a command for both servers."""
        return self.flags_of("nats")

    def flags_of(self, plane: str) -> list[str]:
        """Returns the flags of a command for the servers that a request plane needs."""
        nats = ["--nats", self.nats.url] if plane == "nats" else []
        return ["--etcd", self.etcd.address, *nats, "--lease-ttl", f"{LEASE_TTL}"]
