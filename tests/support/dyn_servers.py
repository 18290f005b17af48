"""etcd and NATS for a module's tests."""

from dataclasses import dataclass

from support.etcd_server import EtcdServer
from support.nats_process import NatsProcess

#: Seconds of a worker's lease.
LEASE_TTL = 2


@dataclass(frozen=True)
class Servers:
    etcd: EtcdServer
    nats: NatsProcess

    @property
    def flags(self) -> list[str]:
        """Where they are, for a command."""
        return self.flags_of("nats")

    def flags_of(self, plane: str) -> list[str]:
        """Where those are that a request plane needs."""
        nats = ["--nats", self.nats.url] if plane == "nats" else []
        return ["--etcd", self.etcd.address, *nats, "--lease-ttl", f"{LEASE_TTL}"]
