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
        return ["--etcd", self.etcd.address, "--nats", self.nats.url, "--lease-ttl", f"{LEASE_TTL}"]
