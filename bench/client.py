"""The load: streaming chat completions over plain sockets, in a process of its own.

Reads one JSON line a task on standard input and answers each with one on standard output. It looks
at no more of a stream than it must: when its first text came, and the usage near its end.
"""

import asyncio
import gc
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

_TEXT = re.compile(rb'"content":"[^"]')
_USAGE = re.compile(rb'"completion_tokens":(\d+)')
_PROMPT = re.compile(rb'"prompt_tokens":(\d+)')
_END = b"\r\n0\r\n\r\n"  # of a chunked body
_TAIL = 2048  # bytes: the usage is in the last two events


@dataclass(frozen=True)
class Task:
    """`requests` bodies on `streams` connections at once, then one answer for all of them."""

    port: int
    body: dict[str, Any]
    streams: int = 1
    requests: int = 1
    hold: bool = False  #: return once all streams are open; the next task closes them


@dataclass(frozen=True)
class Outcome:
    seconds: float = 0.0  #: from the first request to the last end
    tokens: int = 0  #: of all answers, by their usage
    prompt_tokens: int = 0  #: of the last one
    first: list[float] = field(default_factory=list)  #: seconds to the first text, each request

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


class _Stream(asyncio.Protocol):
    """One request on a connection of its own: llama.cpp's server closes it after an answer."""

    def __init__(self, message: bytes) -> None:
        loop = asyncio.get_running_loop()
        self._message = message
        self._sent = 0.0
        self._transport: asyncio.Transport | None = None
        self.opened: asyncio.Future[None] = loop.create_future()  #: at the first text
        self.ended: asyncio.Future[None] = loop.create_future()
        self.first: float | None = None  #: seconds from the request to the first text
        self.tail = b""  #: the end of the answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._sent = time.perf_counter()
        transport.write(self._message)

    def data_received(self, data: bytes) -> None:
        if self.first is None and _TEXT.search(data):
            self.first = time.perf_counter() - self._sent
            if not self.opened.done():
                self.opened.set_result(None)
        self.tail = (self.tail + data)[-_TAIL:]
        if self.tail.endswith(_END):
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if not self.ended.done():
            self.ended.set_result(None)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _message(task: Task) -> bytes:
    body = json.dumps(task.body).encode()
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )


async def _open(task: Task, message: bytes) -> _Stream:
    loop = asyncio.get_running_loop()
    _, stream = await loop.create_connection(lambda: _Stream(message), "127.0.0.1", task.port)
    return stream


async def _run(task: Task) -> Outcome:
    message = _message(task)
    left = task.requests
    ended: list[_Stream] = []

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            stream = await _open(task, message)
            await stream.ended
            ended.append(stream)

    began = time.perf_counter()
    await asyncio.gather(*[work() for _ in range(task.streams)])
    return _outcome(time.perf_counter() - began, ended)


def _outcome(seconds: float, ended: list[_Stream]) -> Outcome:
    tokens = prompt = 0
    for stream in ended:
        counted = _USAGE.findall(stream.tail)
        if not counted:
            raise RuntimeError(f"an answer without usage: {stream.tail[-300:]!r}")
        tokens += int(counted[-1])
        prompt = int(_PROMPT.findall(stream.tail)[-1])
    firsts = [stream.first for stream in ended if stream.first is not None]
    return Outcome(seconds, tokens, prompt, firsts)


async def _hold(task: Task) -> list[_Stream]:
    """Opens streams, and returns when each has its first text."""
    message = _message(task)
    streams = [await _open(task, message) for _ in range(task.streams)]
    await asyncio.wait_for(asyncio.gather(*[stream.opened for stream in streams]), 60)
    return streams


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    held: list[_Stream] = []
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        task = Task(**json.loads(line))
        while held:
            held.pop().close()
        gc.collect()
        outcome = Outcome()
        if task.hold:
            held = await _hold(task)
        elif task.requests:
            outcome = await _run(task)
        print(json.dumps(asdict(outcome)), flush=True)


class Client:
    """The process, from outside. Made by `client`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(self, task: Task) -> Outcome:
        """Raises RuntimeError where an answer did not come to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(task)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the client has ended")
        return Outcome(**json.loads(line))


@contextmanager
def client() -> Iterator[Client]:
    """A running client; its process ends on leaving."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.client"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield Client(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()


if __name__ == "__main__":
    asyncio.run(_serve())
