"""etcd and NATS stop under load, and come back."""

import signal
import time
from http.client import HTTPConnection
from threading import Thread

import pytest

from support.dyn_fleet import Fleet, come, gone
from support.dyn_servers import LEASE_TTL, Servers
from support.dyn_streams import SOME, check, one, streams
from support.waiting import wait_until


@pytest.mark.timeout(60)
@pytest.mark.parametrize("forgets", [False, True], ids=["with its data", "without its data"])
def test_etcd_is_started_again(servers: Servers, pool: Fleet, forgets: bool) -> None:
    workers = pool.workers(3)
    ingress = pool.ingress(workers=3)

    def ask() -> None:
        assert one(ingress.url, max_tokens=4).error == ""

    def start() -> None:
        if forgets:
            servers.etcd.forget()
        servers.etcd.start()
        servers.etcd.wait()

    got = streams([ingress], SOME, (0.5, servers.etcd.kill), (0.8, ask), (1.5, start), (1.7, ask))
    check(got)
    began = time.monotonic()
    late = pool.ingress(workers=3)
    assert time.monotonic() - began < 10
    assert one(late.url).error == ""
    if forgets:
        time.sleep(2 * LEASE_TTL)  # by now a lost worker would be gone
    ask()
    assert gone(ingress) == 0
    workers[0].kill()
    wait_until(lambda: gone(ingress) == 1)
    pool.workers(1)
    wait_until(lambda: come(ingress) == 4)


@pytest.mark.timeout(60)
def test_nats_is_started_again(servers: Servers, pool: Fleet) -> None:
    pool.workers(3)
    ingress = pool.ingress(workers=3)

    got = streams([ingress], SOME, (0.6, servers.nats.stop), (1.6, servers.nats.start))
    check(got)
    servers.nats.stop()

    def start() -> None:
        time.sleep(2)
        servers.nats.start()

    late = Thread(target=start)
    late.start()
    began = time.monotonic()
    answers = streams([ingress], SOME)  # each waits for the server
    assert time.monotonic() - began > 2
    late.join()
    check(answers)
    check(streams([ingress], SOME))


@pytest.mark.timeout(60)
def test_a_stream_that_is_to_move_waits_for_nats(servers: Servers, pool: Fleet) -> None:
    first, *_ = pool.workers(3)
    ingress = pool.ingress(workers=3)
    got = streams(
        [ingress],
        SOME,
        (0.6, servers.nats.stop),
        (0.8, first.kill),
        (2.0, servers.nats.start),
    )
    check(got)


@pytest.mark.timeout(60)
def test_without_nats_a_request_ends_at_its_deadline(servers: Servers, pool: Fleet) -> None:
    pool.workers(1)
    ingress = pool.ingress(workers=1)
    servers.nats.stop()
    cases: list[tuple[dict[str, str], float, float, set[int]]] = [
        ({"x-request-timeout": "1"}, 0.9, 8, {503, 504}),
        ({}, 9, 20, {503}),
    ]
    for headers, least, most, statuses in cases:
        began = time.monotonic()
        connection = HTTPConnection(ingress.url.removeprefix("http://"), timeout=30)
        body = '{"messages": [{"role": "user", "content": "Hello"}]}'
        connection.request("POST", "/v1/chat/completions", body, headers)
        assert connection.getresponse().status in statuses
        assert least < time.monotonic() - began < most
        connection.close()
    servers.nats.start()


@pytest.mark.timeout(60)
def test_a_worker_is_stopped_while_etcd_is_away(servers: Servers, pool: Fleet) -> None:
    first, *_ = pool.workers(2, "--lease-ttl", "10")
    ingress = pool.ingress(workers=2)
    got = streams(
        [ingress],
        SOME,
        (0.5, servers.etcd.kill),
        (0.8, lambda: first.send(signal.SIGTERM)),
    )
    check(got)
    assert first.process.wait(10) == 0
    assert not any("Error" in line for line in first.lines), first.lines
    servers.etcd.start()
    servers.etcd.wait()
