"""Fixtures that most tests of a pool need: etcd and nats-server, both empty."""

from collections.abc import Iterator

import pytest

from support.dyn_fleet import Fleet, fleet
from support.dyn_servers import Servers
from support.etcd_server import etcd_running
from support.nats_process import NatsProcess


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """An etcd and a nats-server that hold nothing yet."""
    for etcd in etcd_running():
        nats = NatsProcess()
        try:
            yield Servers(etcd, nats)
        finally:
            nats.stop()


@pytest.fixture
def pool(servers: Servers) -> Iterator[Fleet]:
    with fleet(servers.flags) as started:
        yield started
