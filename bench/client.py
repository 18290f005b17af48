"""The load generator: streaming chat completions over plain sockets, in its own process.

It reads one task per line of JSON from standard input, and answers each with one line on standard
output. It parses only two things of a stream: the time of the first text, and the usage near the
end.
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
from functools import partial
from itertools import pairwise
from typing import Any

import uvloop

_TEXT = re.compile(rb'"content":"[^"]')
_USAGE = re.compile(rb'"completion_tokens":(\d+)')
_PROMPT = re.compile(rb'"prompt_tokens":(\d+)')
_CACHED = re.compile(rb'"cached_tokens":(\d+)')
_OK = b"HTTP/1.1 200 "
_END = b"\r\n0\r\n\r\n"  # of a chunked body
_TAIL = 2048  # bytes; the last two events have the usage

Body = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """Sends `requests` bodies on `streams` connections in parallel, and returns one result."""

    port: int
    body: Body = field(default_factory=dict)
    streams: int = 1
    requests: int = 1
    bodies: list[Body] = field(default_factory=list)  #: replaces `body`, repeated `requests` times
    keep: bool = False  #: use one connection per stream, not per request
    hold: bool = False  #: return once all streams are open; the next task closes them
    gaps: bool = False  #: return the gaps between the reads of each stream


@dataclass(frozen=True)
class Outcome:
    seconds: float = 0.0  #: from the first request to the last end
    tokens: int = 0  #: of all answers, according to their usage
    prompt_tokens: int = 0  #: of all answers, according to their usage
    cached_tokens: int = 0  #: of these; 0 if the server does not report it
    cpu_seconds: float = 0.0  #: of this client in the meantime
    first: list[float] = field(default_factory=list)  #: seconds to the first text, per request
    gaps: list[float] = field(default_factory=list)  #: seconds between two reads, of all streams

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


@dataclass(frozen=True)
class _Answer:
    first: float | None  #: seconds from the request to the first text
    tail: bytes
    reads: list[float]  #: when each read came

    @property
    def is_whole(self) -> bool:
        return self.tail.endswith(_END) and _USAGE.search(self.tail) is not None


class _Stream(asyncio.Protocol):
    """A connection with one request at a time."""

    def __init__(self, message: bytes, *, keep: bool, gaps: bool) -> None:
        self._message = message
        self._keep = keep
        self._gaps = gaps
        self._transport: asyncio.Transport | None = None
        self.opened = asyncio.get_running_loop().create_future()  #: resolved at the first text

    def ask(self, message: bytes) -> None:
        assert self._transport is not None
        self.ended: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._first: float | None = None
        self._tail = b""
        self._reads: list[float] = []
        self._sent = time.perf_counter()
        self._transport.write(message)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self.ask(self._message)

    def data_received(self, data: bytes) -> None:
        if not self._tail and not data.startswith(_OK):
            self._tail = data
            self.close()
            return
        if self._gaps:
            self._reads.append(time.perf_counter())
        if self._first is None and _TEXT.search(data):
            self._first = time.perf_counter() - self._sent
            if not self.opened.done():
                self.opened.set_result(None)
        self._tail = data if len(data) >= _TAIL else (self._tail + data)[-_TAIL:]
        if self._tail.endswith(_END):
            if self._keep:
                self._end()
            else:
                self.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._end()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(_Answer(self._first, self._tail, self._reads))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _message(body: Body) -> bytes:
    data = json.dumps(body).encode()
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data)
    )


async def _open(task: Task, message: bytes) -> _Stream:
    loop = asyncio.get_running_loop()
    make = partial(_Stream, message, keep=task.keep, gaps=task.gaps)
    _, stream = await loop.create_connection(make, "127.0.0.1", task.port)
    return stream


async def _run(task: Task) -> Outcome:
    left = iter([_message(body) for body in task.bodies] or [_message(task.body)] * task.requests)
    answers: list[_Answer] = []

    async def work() -> None:
        stream: _Stream | None = None
        for message in left:
            if stream is None or not task.keep:
                stream = await _open(task, message)
            else:
                stream.ask(message)
            answers.append(await stream.ended)
            if not answers[-1].is_whole:
                raise RuntimeError(f"an answer was incomplete: {answers[-1].tail[-300:]!r}")
        if stream is not None:
            stream.close()

    began, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*[work() for _ in range(task.streams)])
    return _outcome(time.perf_counter() - began, time.process_time() - used, answers)


def _outcome(seconds: float, used: float, answers: list[_Answer]) -> Outcome:
    tokens = prompt = cached = 0
    for answer in answers:
        tokens += int(_USAGE.findall(answer.tail)[-1])
        prompt += int(_PROMPT.findall(answer.tail)[-1])
        cached += int((_CACHED.findall(answer.tail) or [0])[-1])
    firsts = [answer.first for answer in answers if answer.first is not None]
    gaps = [after - before for answer in answers for before, after in pairwise(answer.reads)]
    return Outcome(seconds, tokens, prompt, cached, used, firsts, gaps)


async def _hold(task: Task) -> list[_Stream]:
    """Opens streams, and returns when each has its first text."""
    message = _message(task.body)
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
    """A handle of the client process. `client` creates it."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(self, task: Task) -> Outcome:
        """Runs a task. Raises RuntimeError if an answer was incomplete."""
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
    """Starts a client, and ends its process at the end of the context."""
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
    uvloop.run(_serve())
