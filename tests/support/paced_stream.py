"""A stream whose gaps are measured while a server gets hostile requests."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from urllib.parse import urlsplit


@dataclass
class Gaps:
    """The longest time between two reads of the stream, in seconds, and how many there were."""

    longest: float = 0.0
    reads: int = 0


@contextmanager
def paced_stream(url: str, words: int = 100_000) -> Iterator[Gaps]:
    """Reads one long stream of an echo server for as long as the block runs."""
    place = urlsplit(url)
    assert place.hostname is not None
    connection = HTTPConnection(place.hostname, place.port, timeout=30)
    message = {"role": "user", "content": "a " * words}
    body = json.dumps({"messages": [message], "stream": True})
    connection.request("POST", "/v1/chat/completions", body)
    response = connection.getresponse()
    assert response.status == 200
    assert response.read1()
    gaps, is_over = Gaps(), threading.Event()

    def read() -> None:
        last = time.monotonic()
        while not is_over.is_set() and response.read1():
            now = time.monotonic()
            gaps.longest = max(gaps.longest, now - last)
            gaps.reads += 1
            last = now

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield gaps
        assert reader.is_alive(), "the stream ended"
    finally:
        is_over.set()
        reader.join(30)
        connection.close()
