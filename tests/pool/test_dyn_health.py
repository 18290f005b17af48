"""`/health` of an ingress says what a request would meet, and which side is at fault."""

import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from support.command import Server, run
from support.dyn_fleet import Fleet, fleet, get
from support.dyn_servers import Servers
from support.dyn_streams import one
from support.nats_process import NatsProcess
from support.waiting import wait_until

RIGHTS = """
authorization {
  users = [
    {user: full, password: secret}
    {user: mute, password: secret, permissions: {subscribe: {allow: "_INBOX.>"}}}
  ]
}
"""


def health(server: Server) -> tuple[int, Any]:
    status, _, body = get(f"{server.url}/health")
    return status, body


def wait_for(server: Server, status: int, words: str = "") -> Any:
    """Waits for a health report with this status and reason. Returns it."""
    found: list[tuple[int, Any]] = []

    def is_there() -> bool:
        found[:] = [health(server)]
        return found[0][0] == status and words in (found[0][1]["reason"] or "")

    wait_until(is_there, 20)
    return found[0][1]


def gauge(server: Server, name: str) -> float:
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("fail", "heal"),
    [(NatsProcess.stop, NatsProcess.start), (NatsProcess.freeze, NatsProcess.thaw)],
    ids=["dead", "frozen"],
)
def test_nats_is_away(
    servers: Servers,
    pool: Fleet,
    fail: Callable[[NatsProcess], None],
    heal: Callable[[NatsProcess], None],
) -> None:
    pool.workers(1)
    ingress = pool.ingress(workers=1)
    wait_for(ingress, 200)
    assert gauge(ingress, 'dynemo_plane_up{plane="requests"}') == 1
    fail(servers.nats)
    try:
        report = wait_for(ingress, 503, "NATS at ")
        assert report["planes"]["requests"]["works"] is False
        assert report["planes"]["discovery"]["works"] is True
        assert gauge(ingress, 'dynemo_plane_up{plane="requests"}') == 0
    finally:
        heal(servers.nats)
    wait_for(ingress, 200)
    wait_until(lambda: one(ingress.url, max_tokens=2).error == "", 20)


@pytest.mark.timeout(60)
def test_the_only_worker_cannot_connect(pool: Fleet) -> None:
    """The ingress names an address that leads nowhere."""
    pool.workers(1)
    ingress = pool.ingress("--advertise", "192.0.2.1", workers=1)
    report = wait_for(ingress, 503, "cannot reach this ingress")
    assert "--advertise" in report["reason"]
    [instance] = report["models"][0]["instances"]
    assert instance["state"] == "unreachable"
    began = time.monotonic()
    answers = [one(ingress.url) for _ in range(4)]
    assert {answer.status for answer in answers} == {503}
    assert time.monotonic() - began < 6  # only one of them waits for the worker
    assert gauge(ingress, "dynemo_requests_rejected_total{") == 4


@pytest.mark.timeout(60)
def test_a_worker_that_may_not_subscribe_ends_and_says_why(
    servers: Servers, tmp_path: Path
) -> None:
    config = tmp_path / "nats.conf"
    config.write_text(RIGHTS)
    nats = NatsProcess("-c", str(config))
    flags = ("--etcd", servers.etcd.address, "--nats", nats.url)
    try:
        done = run(
            "in=dyn://mute",
            "out=echo",
            *flags,
            NATS_AUTH_USERNAME="mute",
            NATS_AUTH_PASSWORD="secret",
        )
    finally:
        nats.stop()
    assert done.returncode == 2
    assert "denies user mute and its password a right" in done.stderr.splitlines()[-1]


@pytest.mark.timeout(60)
def test_a_worker_that_nobody_answers_for(servers: Servers) -> None:
    """It is registered, but takes its requests from another NATS server."""
    other = NatsProcess()
    try:
        with fleet(servers.flags_of("nats")) as pool:
            worker = pool.start("--nats", other.url)
            wait_until(lambda: worker.is_ready, 15)
            ingress = pool.ingress(workers=1)
            report = wait_for(ingress, 503, "Nobody takes requests for worker")
            assert report["models"][0]["instances"][0]["state"] == "unreachable"
    finally:
        other.stop()


@pytest.mark.timeout(60)
def test_a_server_that_stops_says_draining_while_streams_finish(pool: Fleet) -> None:
    pool.workers(1, delay_ms=50)
    ingress = pool.ingress("--grace", "20", workers=1)
    answers: list[Any] = []
    stream = Thread(target=lambda: answers.append(one(ingress.url, "word " * 100, max_tokens=60)))
    stream.start()
    wait_until(lambda: gauge(ingress, "dynemo_requests_in_flight{") == 1)
    ingress.process.terminate()
    wait_for(ingress, 503, "draining")
    refused = one(ingress.url)
    assert (refused.status, "retry-after" in refused.headers) == (503, True)
    stream.join(20)
    assert answers[0].error == ""
    assert ingress.process.wait(10) == 0
