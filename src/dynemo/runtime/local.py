"""A local instance: an engine host as a child process, started again when it dies."""

import asyncio
import contextlib
import logging
import signal
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from dynemo.errors import DynemoError, EngineLost, Unavailable
from dynemo.messages import Delta, Instance, Load, Request
from dynemo.runtime.child import Child, kill
from dynemo.runtime.streams import Asker

log = logging.getLogger("dynemo.engine")

_PING_SECONDS = 2.0
_GRACE = 5.0  # seconds for an engine to end in order
_BACKOFF = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
_STEADY_SECONDS = 60.0  # an engine that ran this long starts anew at the first step of the backoff


class LocalInstance:
    """An `Answerer` whose engine runs in a child process. Made by `local_instance`."""

    def __init__(self) -> None:
        self._asker: Asker | None = None
        self._trouble = "loading"

    @property
    def instance(self) -> Instance | None:
        return self._asker.greeted.result() if self._asker is not None else None

    @property
    def load(self) -> Load:
        return self._asker.load if self._asker is not None else Load()

    @property
    def trouble(self) -> str:
        return "" if self._asker is not None else self._trouble

    def generate(self, request: Request) -> AsyncGenerator[Delta, None]:
        if self._asker is None:
            raise Unavailable(f"The engine takes no requests now: {self._trouble}.")
        return self._asker.generate(request)

    async def keep(self, child: Child, respawn: Callable[[], Child], ready: "Ready") -> None:
        """Serves with `child`, then with what `respawn` makes whenever the last one has died.

        Sets `ready` once; a first child that does not start sets it to the reason and ends this.
        """
        failures = 0
        while True:
            started = time.monotonic()
            reason = await self._live(child, ready)
            if ready.exception() is not None:
                return
            failures = 0 if time.monotonic() - started > _STEADY_SECONDS else failures
            delay = _BACKOFF[min(failures, len(_BACKOFF) - 1)]
            failures += 1
            self._trouble = f"{reason}; starting it again"
            log.error("%s; starting it again in %.1f s", reason, delay)
            await asyncio.sleep(delay)
            child = respawn()

    async def _live(self, child: Child, ready: "Ready") -> str:
        """One child's life. Returns why it ended."""
        loop = asyncio.get_running_loop()
        lost = asyncio.Event()
        tail: deque[str] = deque(maxlen=20)
        asker = Asker(lost.set)
        await loop.create_unix_connection(lambda: asker.link, sock=child.sock)
        await loop.connect_read_pipe(lambda: _Lines(tail), child.process.stdout)
        problem: DynemoError | None = None
        try:
            instance = await asker.greeted
            self._asker = asker
            if not ready.done():
                ready.set_result(instance)
            while not lost.is_set():
                asker.ping()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(lost.wait(), _PING_SECONDS)
        except DynemoError as error:
            problem = error
        finally:
            self._asker = None
            asker.link.close()
            code = await _end(child, _GRACE if asker.is_greeted else 0.0)
        reason = str(problem) if problem is not None else ""
        if problem is None or isinstance(problem, EngineLost):
            reason = f"the engine ended with {_exit(code)}{_last_words(tail)}"
            problem = EngineLost(f"{reason[0].upper()}{reason[1:]}")
        if not ready.done():
            ready.set_exception(problem)
        return reason


Ready = asyncio.Future[Instance]


@contextlib.asynccontextmanager
async def local_instance(
    child: Child, respawn: Callable[[], Child]
) -> AsyncIterator[tuple[LocalInstance, Ready]]:
    """An instance around a started child, and a future that says when it can take requests.

    The future raises what kept the first child from starting. Leaving ends the child.
    """
    local = LocalInstance()
    ready: Ready = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(local.keep(child, respawn, ready), name="engine")
    try:
        yield local, ready
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        if ready.done() and not ready.cancelled():
            ready.exception()  # seen, even when nobody waited for it


class _Lines(asyncio.Protocol):
    """What the engine writes, as lines of our log. The last ones tell why it died."""

    def __init__(self, tail: "deque[str]") -> None:
        self._tail = tail
        self._partial = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[-65536:]
        for line in lines:
            if text := line.decode(errors="replace").rstrip():
                self._tail.append(text)
                log.info("%s", text)


async def _end(child: Child, grace: float) -> int:
    """Waits for a child whose socket is closed, kills its group if it stays. Its exit code."""
    process = child.process
    assert process.stdin is not None
    process.stdin.close()
    deadline = time.monotonic() + grace
    while process.poll() is None and time.monotonic() < deadline:  # noqa: ASYNC110 (no event)
        await asyncio.sleep(0.005)
    return kill(child)


def _exit(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


def _last_words(tail: "deque[str]") -> str:
    return f": {' | '.join(list(tail)[-3:])}" if tail else ""
