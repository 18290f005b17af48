"""A client that reads much slower than its answer comes: nobody else notices."""

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from urllib.parse import urlsplit

import pytest
from command import Server, wait_until
from dyn_fleet import engine_load, fleet
from dyn_servers import Servers, servers_running
from dyn_streams import check, streams

MANY = 32
#: More than all the buffers on the way hold.
TOKENS = 200_000


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    yield from servers_running()


@pytest.mark.timeout(60)
def test_a_slow_reader_slows_nobody(servers: Servers) -> None:
    with fleet(servers.flags) as pool, ThreadPoolExecutor() as threads:
        pool.workers(1, delay_ms=0)
        ingress = pool.ingress(workers=1)
        check(streams([ingress], MANY), MANY)
        before = _resident(ingress)
        is_over = Event()
        slow = threads.submit(_read_slowly, ingress.url, is_over)
        try:
            wait_until(lambda: engine_load(ingress) > 0, 15)
            began = time.monotonic()
            while engine_load(ingress) > 0:
                assert time.monotonic() - began < 18
                check(got := streams([ingress], MANY), MANY)
                assert max(answer.longest_gap for answer in got) < 2
                assert _resident(ingress) - before < 128 * 2**20
                time.sleep(1)
        finally:
            is_over.set()
        assert b"[DONE]" not in slow.result()


def _read_slowly(url: str, is_over: Event) -> bytes:
    """What 1 kB/s of a long answer gives; the buffers on the way outlast the answer."""
    prompt = " capital of the country" * (TOKENS // 4)  # ids of three bytes each
    body = json.dumps({"messages": [{"role": "user", "content": prompt}], "stream": True}).encode()
    place = urlsplit(url)
    got = b""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((place.hostname, place.port))
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
        sock.sendall(head % len(body) + body)
        while not is_over.wait(0.1):
            got += sock.recv(100)
    return got


def _resident(server: Server) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024
