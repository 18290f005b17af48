"""A client that reads too slowly does not disturb other clients."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from support.command import Server
from support.dyn_fleet import engine_load, fleet
from support.dyn_servers import Servers
from support.dyn_streams import check, streams
from support.waiting import wait_until

MANY = 32
#: The answer of 1.2 MB exceeds all buffers on its way. Many tokens share an event.
TOKENS = 100_000


@pytest.mark.timeout(60)
def test_a_slow_reader_is_cancelled_alone(servers: Servers) -> None:
    with fleet(servers.flags) as pool, ThreadPoolExecutor() as threads:
        pool.workers(1, delay_ms=0)
        ingress = pool.ingress(workers=1)
        check(streams([ingress], MANY))
        before = _resident(ingress)
        slow = threads.submit(_read_slowly, ingress.url)
        began = time.monotonic()
        while not slow.done():
            assert time.monotonic() - began < 28, "the stall ended it, not the bound of the buffer"
            check(got := streams([ingress], MANY))
            assert max(answer.longest_gap for answer in got) < 5
            assert _resident(ingress) - before < 32 * 2**20
        assert slow.result() < 16 * 2**10
        wait_until(lambda: engine_load(ingress) == 0)
        wait_until(lambda: sum("status=408" in line for line in ingress.lines) == 1)
        wait_until(lambda: sum("status=200" in line for line in ingress.lines) % MANY == 0)


def _read_slowly(url: str) -> int:
    """Reads 1 kB/s of a long answer until the connection is reset. Returns the number of bytes."""
    prompt = " temperature" * TOKENS  # each word is one token
    body = json.dumps({"messages": [{"role": "user", "content": prompt}], "stream": True}).encode()
    place = urlsplit(url)
    got = 0
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((place.hostname, place.port))
        head = (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n"
        )
        sock.sendall(head % len(body) + body)
        with suppress(ConnectionResetError):
            while data := sock.recv(100):
                got += len(data)
                time.sleep(0.1)
            raise AssertionError("it ended in order")
    return got


def _resident(server: Server) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024
