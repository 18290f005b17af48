"""`dynemo-run services` with real servers, on free ports and in a temporary folder."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from dynemo.commands.server import etcd_answers, nats_answers
from support.free_ports import free_port

pytestmark = pytest.mark.timeout(40)


@dataclass(frozen=True)
class Services:
    home: Path
    etcd: int
    nats: int

    def __call__(self, *words: str, **more: str) -> "subprocess.CompletedProcess[str]":
        ports = ["--etcd-port", str(self.etcd), "--nats-port", str(self.nats)]
        return subprocess.run(
            [sys.executable, "-m", "dynemo", "services", *words, *ports],
            capture_output=True,
            text=True,
            timeout=30,
            # Variables of another etcd, which a user may have in the shell.
            env={
                **os.environ,
                "XDG_DATA_HOME": str(self.home),
                "ETCD_LISTEN_CLIENT_URLS": "http://0.0.0.0:1",
                **more,
            },
            check=False,
        )

    def pid(self, name: str) -> int:
        file = self.home / "dynemo-run" / "services" / f"{name}.pid"
        return int(json.loads(file.read_text())["pid"])


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    found = Services(tmp_path, free_port(), free_port())
    try:
        yield found
    finally:
        found("down")


def test_up_status_down(services: Services) -> None:
    before = services("status")
    assert before.returncode == 1
    assert before.stdout.count("not running") == 2

    done = services("up")
    assert done.returncode == 0, done.stderr
    assert f"etcd started: 127.0.0.1:{services.etcd}" in done.stdout
    assert f"export NATS_SERVER=nats://127.0.0.1:{services.nats}" in done.stdout
    assert etcd_answers(services.etcd)
    assert nats_answers(services.nats)

    again = services("up")
    assert again.returncode == 0
    assert again.stdout.count("was running already") == 2

    now = services("status")
    assert now.returncode == 0
    etcd, nats = now.stdout.splitlines()
    assert f"pid {services.pid('etcd')}" in etcd
    assert str(services.home) in etcd
    assert f"127.0.0.1:{services.nats}" in nats

    ended = services("down")
    assert (ended.returncode, ended.stdout.count("stopped")) == (0, 2)
    assert not etcd_answers(services.etcd)
    assert not nats_answers(services.nats)
    assert services("down").stdout.count("was not running") == 2


def test_data_of_a_killed_etcd_does_not_prevent_the_next_start(services: Services) -> None:
    services("up")
    os.kill(services.pid("etcd"), signal.SIGKILL)
    wait_until_gone(services.etcd)
    # The file with the pid is still there, but the process is not.
    assert services("status").stdout.splitlines()[0].startswith("etcd        not running")
    done = services("up")
    assert "etcd started" in done.stdout
    assert "nats-server was running already" in done.stdout


def test_a_server_that_hangs(services: Services) -> None:
    services("up")
    os.kill(services.pid("etcd"), signal.SIGSTOP)
    try:
        now = services("status")
    finally:
        os.kill(services.pid("etcd"), signal.SIGCONT)
    assert now.returncode == 1
    etcd, nats = now.stdout.splitlines()
    assert "does not answer" in etcd
    assert "running" in nats


def test_two_at_once(services: Services) -> None:
    with ThreadPoolExecutor() as threads:
        done = list(threads.map(lambda _: services("up"), range(3)))
    assert [each.returncode for each in done] == [0, 0, 0], done
    assert sum(each.stdout.count(" started") for each in done) == 2


def test_another_program_at_a_port(services: Services) -> None:
    with socket.create_server(("127.0.0.1", services.nats)):
        done = services("up")
        assert done.returncode == 2
        assert f"nats-server cannot use port {services.nats}" in done.stderr
        assert "--nats-port" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not etcd_answers(services.etcd)  # if one server fails, the other does not start


def test_servers_of_others_are_used_and_left_alone(services: Services, tmp_path: Path) -> None:
    other = Services(tmp_path / "other", services.etcd, services.nats)
    assert services("up").returncode == 0
    assert other("up").stdout.count("was running already") == 2
    status = other("status")
    assert (status.returncode, status.stdout.count("not ours")) == (0, 2)
    assert other("down").stdout.count("keeps running") == 2
    assert services("status").returncode == 0


def test_without_etcd(services: Services, tmp_path: Path) -> None:
    done = services("up", PATH=str(tmp_path))
    assert done.returncode == 2
    for word in ("apt-get install etcd-server", "brew install etcd", "--discovery file"):
        assert word in done.stderr
    assert not nats_answers(services.nats)


def test_a_word_that_it_does_not_know(services: Services) -> None:
    done = services("start")
    assert done.returncode == 2
    assert 'Unknown services command "start"' in done.stderr


def wait_until_gone(port: int) -> None:
    deadline = time.monotonic() + 10
    while etcd_answers(port):
        assert time.monotonic() < deadline
        time.sleep(0.02)
