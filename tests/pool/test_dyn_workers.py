"""Workers die, stop, hang and break under load, and no stream is lost."""

import os
import signal
import socket
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from msgspec import msgpack

from dynemo.messages.wire import Greeting
from dynemo.wire.frames import HEADER, MAX_BODY, FrameKind, encode
from dynemo.wire.versions import SPOKEN
from support.dyn_fleet import Fleet, engine_load, gone, listening, present
from support.dyn_streams import MANY, SOME, check, one, streams
from support.waiting import wait_until


@pytest.mark.timeout(60)
def test_one_worker_is_killed_and_then_a_second(pool: Fleet) -> None:
    first, second, _ = pool.workers(3, delay_ms=30)
    ingress = pool.ingress(workers=3)
    got = streams([ingress], MANY, (1.2, first.kill), (2.0, second.kill))
    check(got)
    assert not any("silent" in line for line in ingress.lines)  # the closed connections show it
    assert sum(" moves to another instance after" in line for line in ingress.lines) >= MANY / 6
    wait_until(lambda: present(ingress) == 1)
    assert one(ingress.url).error == ""


@pytest.mark.timeout(60)
def test_a_worker_is_stopped_under_load(pool: Fleet) -> None:
    first, *_ = pool.workers(3)
    ingress = pool.ingress(workers=3)
    got = streams([ingress], MANY, (0.8, lambda: first.send(signal.SIGTERM)))
    check(got)
    assert first.process.wait(20) == 0
    wait_until(lambda: present(ingress) == 2)


@pytest.mark.timeout(60)
def test_an_engine_host_is_killed(pool: Fleet) -> None:
    workers = pool.workers(3)
    ingress = pool.ingress(workers=3)
    [host] = workers[0].host_pids()
    got = streams([ingress], MANY, (0.8, lambda: os.kill(host, signal.SIGKILL)))
    check(got)
    assert any("SIGKILL" in line for line in workers[0].lines)
    wait_until(lambda: gone(ingress) and present(ingress) == 3)
    assert workers[0].process.poll() is None
    for worker in workers[1:]:
        worker.kill()
    wait_until(lambda: present(ingress) == 1)
    assert one(ingress.url).error == ""


@pytest.mark.timeout(60)
def test_a_worker_freezes_and_thaws(pool: Fleet) -> None:
    frozen, *_ = pool.workers(3, delay_ms=30)
    ingress = pool.ingress(workers=3)
    got = streams([ingress], MANY, (1.2, lambda: frozen.send(signal.SIGSTOP)))
    check(got)
    assert max(answer.longest_gap for answer in got) < 10
    wait_until(lambda: present(ingress) == 2)
    frozen.send(signal.SIGCONT)
    wait_until(lambda: present(ingress) == 3)
    check(streams([ingress], SOME))


@pytest.mark.timeout(60)
def test_a_frozen_worker_holds_up_the_first_request_alone(pool: Fleet) -> None:
    frozen, *_ = pool.workers(3, "--lease-ttl", "20")
    ingress = pool.ingress("--router-mode", "round-robin", workers=3)

    def seconds() -> float:
        answer = one(ingress.url, max_tokens=2)
        assert answer.error == ""
        return answer.seconds

    def answered() -> int:
        return sum("answer: finished" in line for line in frozen.lines)

    for _ in range(3):
        seconds()
    frozen.send(signal.SIGSTOP)
    assert sum(seconds() > 1.9 for _ in range(12)) == 1  # it waits 2 for a reply
    assert sum("did not reply" in line for line in ingress.lines) == 1
    assert gone(ingress) == 0
    before = answered()
    frozen.send(signal.SIGCONT)
    wait_until(lambda: seconds() and answered() > before)


@pytest.mark.timeout(60)
def test_strangers_at_the_response_port(pool: Fleet) -> None:
    pool.workers(2)
    ingress = pool.ingress(workers=2)
    [port] = listening(ingress.process.pid) - {urlsplit(ingress.url).port}
    ours = msgpack.encode(Greeting(SPOKEN.newest, "a" * 32, bytes(32)))
    said = [
        os.urandom(64 * 1024),
        b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n",
        HEADER.pack(MAX_BODY + 1, FrameKind.DATA, 1),
        encode(FrameKind.HELLO, 0, ours) + encode(FrameKind.OPEN, 1, bytes(16)),
    ]

    def disturb() -> None:
        for data in said:
            sock = socket.create_connection(("127.0.0.1", port), 5)
            with sock, suppress(ConnectionError):
                sock.sendall(data)
                assert sock.recv(1) == b""

    check(streams([ingress], SOME, (0.5, disturb), (1.0, disturb)))
    lines = [line for line in ingress.lines if "Closed the connection to worker" in line]
    assert len(lines) == 2 * len(said)


@pytest.mark.timeout(60)
def test_an_ingress_is_killed(pool: Fleet) -> None:
    [worker] = pool.workers(1, "--grace", "30", delay_ms=100)
    ends, stays = pool.ingress(workers=1), pool.ingress(workers=1)
    assert one(stays.url, max_tokens=1).error == ""
    got = streams([ends], SOME, (2.5, ends.process.kill))
    assert all(answer.text and answer.error for answer in got)
    wait_until(lambda: engine_load(stays) == 0)
    worker.send(signal.SIGTERM)
    assert worker.process.wait(15) == 0  # with open streams it would wait longer
