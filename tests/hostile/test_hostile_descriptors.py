"""Clients that use up the file descriptors of a server."""

import asyncio
import logging
import os
import re
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dynemo.descriptors import DescriptorReserve, log_lack_once, raise_limit, set_limit
from support.command import COMMAND, serving

HARD = resource.getrlimit(resource.RLIMIT_NOFILE)[1]


@pytest.fixture(autouse=True)
def limits() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    set_limit(256)
    assert raise_limit() == 256
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(HARD, 2**20), HARD)
    assert raise_limit() == min(HARD, 2**20)


def test_the_last_numbers_are_the_reserve(caplog: pytest.LogCaptureFixture) -> None:
    set_limit(256)
    reserve = DescriptorReserve()
    assert [reserve.holds(number) for number in (3, 223, 224, 255)] == [False, False, True, True]
    assert [reserve.is_ending(number) for number in (224, 239, 240)] == [False, False, True]
    assert len(caplog.records) == 1
    assert "Nearly all of 256 file descriptors are in use" in caplog.text


def test_a_loop_of_asyncio_logs_once(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        log_lack_once(loop)
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        async with server, asyncio.timeout(10):
            address = server.sockets[0].getsockname()
            with socket.socket() as client:
                client.setblocking(False)
                lowest = os.dup(0)
                os.close(lowest)
                set_limit(lowest)
                await loop.sock_connect(client, address)
                await asyncio.sleep(0.3)
                set_limit(HARD)

    with caplog.at_level(logging.DEBUG):
        asyncio.run(body())
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR] == [
        "All file descriptors are in use; new connections must wait."
    ]


def _get(port: int, path: str, connection: socket.socket | None = None) -> tuple[int, bytes]:
    with ExitStack() as stack:
        if connection is None:
            address = ("127.0.0.1", port)
            connection = stack.enter_context(socket.create_connection(address, timeout=10))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        answer = b""
        while not (
            found := re.search(rb"content-length: (\d+)\r\n.*?\r\n\r\n(.*)", answer, re.S)
        ) or (len(found[2]) < int(found[1])):
            part = connection.recv(65536)
            if not part:
                return 0, answer
            answer += part
        return int(answer.split()[1]), found[2]


def _limited(monkeypatch: pytest.MonkeyPatch, flags: str) -> None:
    """Starts the command with other limits."""
    monkeypatch.setattr(
        "support.command.COMMAND", ["sh", "-c", f'ulimit {flags} && exec "$@"', "sh", *COMMAND]
    )


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="the limits are in /proc")
def test_an_engine_host_keeps_the_limit_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    _limited(monkeypatch, "-S -n 300")
    with serving("out=echo", "--model-name", "m") as server:
        [host] = server.host_pids()
        limits = [Path(f"/proc/{pid}/limits").read_text() for pid in (server.process.pid, host)]
        [ours, theirs] = [re.findall(r"Max open files +(\d+)", text)[0] for text in limits]
        assert (int(ours), int(theirs)) == (min(HARD, 2**20), 300)


def test_near_the_limit_new_connections_get_503(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connections before are served, the log has one line, and all is well afterwards."""
    _limited(monkeypatch, "-n 128")
    with serving("out=echo", "--model-name", "m") as server, ExitStack() as stack:
        port = int(server.url.rpartition(":")[2])
        held = []
        for _ in range(200):
            connection = stack.enter_context(socket.socket())
            connection.settimeout(10)
            connection.connect(("127.0.0.1", port))
            held.append(connection)
        time.sleep(0.2)
        answers = [_answer(port, connection) for connection in held]
        assert answers.count(200) >= 50
        assert answers.count(503) >= 1
        assert answers == sorted(answers, key=[200, 503, 0].index)
        assert _get(port, "/v1/models", held[0])[0] == 200
        stack.close()
        time.sleep(0.5)
        assert _get(port, "/v1/models")[0] == 200
        assert len([line for line in server.lines if "file descriptors are in use" in line]) == 1
        assert not [line for line in server.lines if "Traceback" in line]


def _answer(port: int, connection: socket.socket) -> int:
    """The status; 0 for a connection that the server has closed."""
    try:
        return _get(port, "/v1/models", connection)[0]
    except OSError:
        return 0
