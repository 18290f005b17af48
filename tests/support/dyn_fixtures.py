"""What most tests of a pool begin with: etcd and nats-server, and nothing on them yet."""

from collections.abc import Iterator

import pytest

from support.dyn_fleet import Fleet, fleet
from support.dyn_servers import Servers, servers_running


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    yield from servers_running()


@pytest.fixture
def pool(servers: Servers) -> Iterator[Fleet]:
    with fleet(servers.flags) as started:
        yield started
