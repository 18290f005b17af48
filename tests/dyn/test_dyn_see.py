"""What one sees of a pool: `ps`, a worker's metrics, and one trace id in the logs of both sides."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest
from command import run, wait_until
from dyn_fleet import Fleet, fleet
from dyn_servers import Servers, servers_running
from dyn_streams import streams


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    yield from servers_running()


@pytest.fixture(params=["nats", "tcp"])
def pool(servers: Servers, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    with fleet([*servers.flags, "--request-plane", request.param]) as started:
        yield started


@contextmanager
def held(*args: Any) -> Iterator[None]:
    """Streams that run meanwhile, to their ends."""
    thread = Thread(target=streams, args=args)
    thread.start()
    try:
        yield
    finally:
        thread.join(30)


def loads(servers: Servers, pool: Fleet) -> list[dict[str, Any] | None]:
    done = run("ps", "--json", "--etcd", servers.etcd.address, "--nats", servers.nats.url)
    assert done.returncode == 0, done.stderr
    entries = json.loads(done.stdout)["instances"]
    return [each["load"] for each in entries if f"dyn://{each['component']}" == pool.address]


@pytest.mark.timeout(60)
def test_ps_shows_the_load_of_each_instance(servers: Servers, pool: Fleet) -> None:
    idle = {"running": 0, "waiting": 0, "kv_use": 0.0}
    first, _ = pool.workers(2, delay_ms=60)
    ingress = pool.ingress("--router-mode", "round-robin", workers=2)
    assert loads(servers, pool) == [idle, idle]
    with held([ingress], 6):
        wait_until(lambda: loads(servers, pool) == [{**idle, "running": 3}] * 2)
    wait_until(lambda: loads(servers, pool) == [idle, idle])
    first.kill()  # its lease lasts a while: it is registered, and does not answer
    after = loads(servers, pool)
    assert after in ([None, idle], [idle, None], [idle])
