"""Workers that die, stop, hang and break under load: no stream notices."""

import os
import signal
from collections.abc import Iterator

import pytest
from command import wait_until
from dyn_fleet import Fleet, come, engine_load, fleet, gone
from dyn_servers import Servers, servers_running
from dyn_streams import check, one, streams

MANY = 48


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    yield from servers_running()


@pytest.fixture
def pool(servers: Servers) -> Iterator[Fleet]:
    with fleet(servers.flags) as started:
        yield started


@pytest.mark.timeout(60)
def test_one_worker_is_killed_and_then_a_second(pool: Fleet) -> None:
    first, second, _ = pool.workers(3)
    ingress = pool.ingress(workers=3)
    got = streams([ingress], MANY, (0.8, first.kill), (1.6, second.kill))
    check(got, MANY)
    assert max(answer.longest_gap for answer in got) < 3
    assert sum(" moves after" in line for line in ingress.lines) >= MANY / 3
    wait_until(lambda: gone(ingress) == 2, 6)
    assert one(ingress.url).error == ""


@pytest.mark.timeout(60)
def test_a_worker_is_stopped_under_load(pool: Fleet) -> None:
    first, *_ = pool.workers(3)
    ingress = pool.ingress(workers=3)
    got = streams([ingress], MANY, (0.8, lambda: first.send(signal.SIGTERM)))
    check(got, MANY)
    assert first.process.wait(5) == 0
    assert gone(ingress) == 1


@pytest.mark.timeout(60)
def test_an_engine_host_is_killed(pool: Fleet) -> None:
    workers = pool.workers(3)
    ingress = pool.ingress(workers=3)
    [host] = workers[0].host_pids()
    got = streams([ingress], MANY, (0.8, lambda: os.kill(host, signal.SIGKILL)))
    check(got, MANY)
    assert any("SIGKILL" in line for line in workers[0].lines)
    wait_until(lambda: come(ingress) == 4, 6)
    assert workers[0].process.poll() is None
    for worker in workers[1:]:
        worker.kill()
    wait_until(lambda: gone(ingress) == 3, 6)
    assert one(ingress.url).error == ""


@pytest.mark.timeout(60)
def test_a_worker_freezes_and_thaws(pool: Fleet) -> None:
    frozen, *_ = pool.workers(3)
    ingress = pool.ingress(workers=3)
    got = streams([ingress], MANY, (0.8, lambda: frozen.send(signal.SIGSTOP)))
    check(got, MANY)
    assert max(answer.longest_gap for answer in got) < 10
    assert gone(ingress) == 1
    frozen.send(signal.SIGCONT)
    wait_until(lambda: come(ingress) == 4, 6)
    check(streams([ingress], MANY), MANY)


@pytest.mark.timeout(60)
def test_an_ingress_is_killed(pool: Fleet) -> None:
    [worker] = pool.workers(1, "--grace", "15", delay_ms=100)
    ends, stays = pool.ingress(workers=1), pool.ingress(workers=1)
    assert one(stays.url, max_tokens=1).error == ""
    got = streams([ends], MANY, (2.5, ends.process.kill))
    assert all(answer.text and answer.error for answer in got)
    wait_until(lambda: engine_load(stays) == 0, 5)
    worker.send(signal.SIGTERM)
    assert worker.process.wait(2) == 0  # with streams left it would wait for them
