"""Judges each guide in a process that can be killed, before an engine gets it.

A parser may need any time and memory for a guide, and may crash. In the engine's own process that
would stop every request. So a child process of the engine host parses the guide first, with the
engine's parser. The child is started at the first guide and kept. The engine pays the same price
again for each choice, so the bounds are narrow (`limits.py`).

The child is in the host's process group, which the runner kills at the end. It also ends by itself,
because its standard input closes and because its CPU time is bounded.
"""

import asyncio
import signal
import socket
import subprocess
import sys
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

from msgspec import msgpack

import dynemo
from dynemo import limits
from dynemo.engines.guides.verdict import HEADER_BYTES, Verdict, refused
from dynemo.errors import DynemoError, Unavailable
from dynemo.foreign import msgpack_decoder
from dynemo.messages.request import Guide

_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from dynemo.engines.guides.child import run; run(sys.argv[2])"
)
_encode = msgpack.Encoder().encode
_decode = msgpack_decoder(Verdict)


class GuideJudge:
    """Judges guides, each text once. `open_judge` opens one."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._verdicts: OrderedDict[bytes, Verdict] = OrderedDict()
        self._judging: dict[bytes, asyncio.Task[Verdict | DynemoError]] = {}
        self._places = asyncio.Semaphore(limits.GUIDE_JUDGES)
        self._children: set[_Child] = set()
        self._idle: list[_Child] = []
        self._next_start = 0.0  # loop time at which the engine may compile the next guide

    async def judge(self, guide: Guide) -> str:
        """Returns the guide as the engine takes it, or the guide of the rest of an answer.

        Raises RequestError if the engine cannot follow it within the limits, and Unavailable if the
        guide could not be judged now. Raises GuideNotContinued if the guide is for the rest of an
        answer, and cannot be advanced.
        """
        try:
            data = guide.text.encode()
        except UnicodeEncodeError:
            raise refused("it is not valid Unicode", guide.kind) from None
        if len(data) > limits.GUIDE_BYTES:
            raise refused(f"it may have {limits.GUIDE_BYTES} bytes", guide.kind)
        written = guide.written.encode(errors="surrogatepass")
        key = sha256(b"\0".join((guide.kind.encode(), data, written))).digest()
        verdict: Verdict | DynemoError | None = self._verdicts.get(key)
        if verdict is None:
            task = self._judging.get(key)
            if task is None:
                task = self._judging[key] = asyncio.create_task(self._judge(key, guide))
            # The choices of a request share one judgement, and any of them may be cancelled.
            verdict = await asyncio.shield(task)
        else:
            self._verdicts.move_to_end(key)
        if isinstance(verdict, DynemoError):
            raise verdict
        text = verdict.passed(guide.kind)
        await self._pace(verdict.seconds)
        return text

    async def _pace(self, seconds: float) -> None:
        """Waits until the engine may compile a guide that takes so long.

        It compiles in the loop that makes all tokens, once for each choice. So 64 choices with a
        large schema would delay every other answer by seconds if they started together.
        """
        now = asyncio.get_running_loop().time()
        start = max(now, self._next_start)
        self._next_start = start + seconds / limits.GUIDE_SHARE
        if start > now:
            await asyncio.sleep(start - now)

    async def close(self) -> None:
        tasks = list(self._judging.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for child in list(self._children):
            await self._end(child)

    async def _judge(self, key: bytes, guide: Guide) -> Verdict | DynemoError:
        """Returns an error instead of raising it: all who wait may have left."""
        try:
            async with asyncio.timeout(limits.GUIDE_WAIT_SECONDS), self._places:
                verdict = await self._ask_child(guide)
        except (TimeoutError, OSError):
            return Unavailable("The guide could not be judged in time. Try again.")
        finally:
            del self._judging[key]
        self._verdicts[key] = verdict
        if len(self._verdicts) > limits.GUIDE_VERDICTS:
            self._verdicts.popitem(last=False)
        return verdict

    async def _ask_child(self, guide: Guide) -> Verdict:
        child = self._take_child()
        is_idle = False
        try:
            verdict = await child.ask(guide)
            is_idle = not verdict.is_last
        except (asyncio.IncompleteReadError, ConnectionError):
            code = await asyncio.to_thread(child.process.wait)
            if code != -signal.SIGKILL or child.asked == 1:
                reason = _reason(code)
                return Verdict(stuck=reason) if guide.written else Verdict(refused=reason)
        else:
            return verdict
        finally:
            if is_idle:
                self._idle.append(child)
            else:
                await self._end(child)
        # Somebody may have killed the child between two guides. A new one judges for certain.
        return await self._ask_child(guide)

    def _take_child(self) -> "_Child":
        while self._idle:
            child = self._idle.pop()
            if child.process.poll() is None:
                return child
            child.close()
            self._children.discard(child)
        child = _Child(self._module)
        self._children.add(child)
        return child

    async def _end(self, child: "_Child") -> None:
        child.close()
        child.process.kill()
        self._children.discard(child)
        await asyncio.to_thread(child.process.wait)  # it may have much memory to give back


class _Child:
    """A process that runs `child.py`."""

    def __init__(self, module: str) -> None:
        self._sock, theirs = socket.socketpair()
        self.asked = 0  #: guides
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        path = str(Path(dynemo.__file__).parent.parent)
        command = [sys.executable, "-P", "-c", _START, path, module]
        with theirs:
            self.process = subprocess.Popen(
                command, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.DEVNULL
            )

    async def ask(self, guide: Guide) -> Verdict:
        """Raises IncompleteReadError or ConnectionError if the process ends."""
        self.asked += 1
        if self._streams is None:
            self._streams = await asyncio.open_connection(sock=self._sock)
        reader, writer = self._streams
        body = _encode(guide)
        writer.write(len(body).to_bytes(HEADER_BYTES) + body)
        await writer.drain()
        header = await reader.readexactly(HEADER_BYTES)
        return _decode(await reader.readexactly(int.from_bytes(header)))

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
        self._sock.close()


@asynccontextmanager
async def open_judge(module: str) -> AsyncIterator[GuideJudge]:
    """Opens a judge. `module` has `load()` and `judge(kind, text)`; see `child.py`."""
    judge = GuideJudge(module)
    try:
        yield judge
    finally:
        await judge.close()


def _reason(code: int) -> str:
    if code == -signal.SIGPROF:
        return f"its check takes more than {limits.GUIDE_SECONDS} s"
    return "it needs more memory or is nested more deeply than a guide may be"
