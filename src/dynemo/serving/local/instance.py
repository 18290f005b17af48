"""A local instance: an engine host as a child process, started again when it dies."""

import asyncio
import contextlib
import logging
import subprocess
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

from dynemo.connection.buffer import CancelReader, StreamBuffer
from dynemo.connection.client import HostClient, encoded
from dynemo.errors import (
    DynemoError,
    EngineError,
    EngineLost,
    EngineNotLoaded,
    ModelError,
    Unavailable,
    WireError,
)
from dynemo.messages.answer import Delta
from dynemo.messages.records import Instance, Load
from dynemo.messages.request import Request
from dynemo.serving.local.child import Child, kill, signal_group
from dynemo.serving.local.last_lines import complaint, ending

log = logging.getLogger("dynemo.engine")

_PING_SECONDS = 2.0
_MOST_UNANSWERED = 5
_GRACE = 5.0  # seconds for an engine to end in order
_BACKOFF = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
_LAST_WORDS_SECONDS = 0.5  # for the rest of a dead engine's output to be read
_STEADY_SECONDS = 60.0  # an engine that ran this long starts anew at the first step of the backoff

Ready = asyncio.Future[Instance]  #: raises what kept the first child from starting
Ended = asyncio.Future[None]  #: raises why the engine has ended for good


class LocalInstance:
    """A `Backend` whose engine runs in a child process. Made by `local_instance`."""

    moves = 0  # there is no other one

    def __init__(self) -> None:
        self._asker: HostClient | None = None
        self._trouble = "loading"  # as the end of a sentence, without its full stop
        self.up = asyncio.Event()  #: it can take requests
        self.down = asyncio.Event()  #: it cannot
        self.down.set()
        self.restarts = 0
        #: No engine has just died of which the log does not say yet how.
        self.explained = asyncio.Event()
        self.explained.set()
        #: Raises why the engine has ended for good; not done where it is started again.
        self.ended: Ended = asyncio.get_running_loop().create_future()

    @property
    def instance(self) -> Instance | None:
        asker = self._asker  # a thread that prepares a long prompt reads it too
        return asker.greeted.result() if asker is not None else None

    @property
    def instance_classes(self) -> list[Instance]:
        instance = self.instance
        return [] if instance is None else [instance]

    @property
    def load(self) -> Load:
        return self._asker.load if self._asker is not None else Load()

    @property
    def instances(self) -> list[tuple[Instance, Load]]:
        instance = self.instance
        return [] if instance is None else [(instance, self.load)]

    @property
    def trouble(self) -> str:
        return "" if self._asker is not None else self._trouble

    def generate(
        self, request: Request, cancel_reader: CancelReader | None = None
    ) -> AsyncGenerator[Delta, None]:
        return self.ask(encoded(request), StreamBuffer(cancel_reader))

    def ask(self, request: bytes, buffer: StreamBuffer) -> AsyncGenerator[Delta, None]:
        """See `HostClient.ask`."""
        if self._asker is None:
            raise Unavailable(f"The engine takes no requests now: {self._trouble}.")
        return self._asker.ask(request, buffer)

    def _ask_of(self, asker: HostClient | None) -> None:
        """From now on; None: there is no engine to ask."""
        self._asker = asker
        for event, is_now in ((self.up, asker is not None), (self.down, asker is None)):
            if is_now:
                event.set()
            else:
                event.clear()

    async def keep(self, child: Child, respawn: Callable[[], Child] | None, ready: Ready) -> None:
        """Serves with `child`, then with what `respawn` makes whenever the last one has died.

        Sets `ready` once; a first child that does not start sets it to the reason and ends this.
        """
        failures = 0
        while True:
            started = time.monotonic()
            problem = await self._live(child, ready)
            if not ready.done():
                ready.set_exception(problem)
                return
            if respawn is None:
                self._trouble = str(problem).removesuffix(".")
                self.ended.set_exception(problem)
                return
            if time.monotonic() - started > _STEADY_SECONDS:
                failures = 0
            next_child = None
            while next_child is None:
                delay = _BACKOFF[min(failures, len(_BACKOFF) - 1)]
                failures += 1
                self._trouble = f"{problem} Starting it again"
                log.error("%s Starting it again in %.1f s.", problem, delay)
                await asyncio.sleep(delay)
                try:
                    next_child = respawn()
                except OSError as error:
                    problem = EngineLost(f"The engine cannot be started: {error.strerror}.")
            child = next_child
            self.restarts += 1

    async def _live(self, child: Child, ready: Ready) -> DynemoError:
        """One child's life, to its end. Why it ended, as a sentence."""
        lost = asyncio.Event()
        lines = _Lines()

        def on_lost() -> None:
            lost.set()
            if self._asker is asker:  # it was up, and it is not we who let it go
                self.explained.clear()

        asker = HostClient(on_lost)
        problem: DynemoError | None = None
        pipe: asyncio.BaseTransport | None = None
        try:
            loop = asyncio.get_running_loop()
            await loop.create_unix_connection(lambda: asker.link, sock=child.sock)
            pipe, _ = await loop.connect_read_pipe(lambda: lines, child.process.stdout)
            instance = await asyncio.shield(asker.greeted)
            self._ask_of(asker)
            if not ready.done():
                ready.set_result(instance)
            await _watch(asker, lost)
        except DynemoError as error:
            problem = error
        except OSError as error:
            problem = EngineLost(f"The engine cannot be reached: {error.strerror}.")
        finally:
            if asker.is_greeted:  # it is not loading; how it ended is known once it is gone
                self._trouble = "the engine has ended"
            self._ask_of(None)
            # It ends by itself where it has loaded, or has let go of us; loading, it does not hear.
            is_orderly = not isinstance(problem, _EngineHangs) and (
                asker.is_greeted or lost.is_set()
            )
            asker.link.close()
            code = await _end(child, _GRACE if is_orderly else 0.0, lines.ended)
            if pipe is not None:
                pipe.close()
            self.explained.set()
        if isinstance(problem, ModelError):
            return ModelError(f"{problem}{complaint(lines.tail)}")
        if problem is None or type(problem) is EngineLost:
            kind = EngineLost if asker.is_greeted else EngineNotLoaded
            return kind(ending(code, lines.tail))
        if isinstance(problem, EngineError) and not asker.is_greeted:
            return EngineNotLoaded(f"The engine could not load: {problem}")
        return problem


class _EngineHangs(EngineLost):
    """It lives, and says nothing any more."""


async def _watch(asker: HostClient, lost: asyncio.Event) -> None:
    """Returns when the connection is lost. Raises _EngineHangs when the host falls silent.

    Counts pings and not seconds: a runner that was stopped itself must not blame the host.
    """
    unanswered = 0
    while not lost.is_set():
        pinged = time.monotonic()
        asker.ping()
        # Not `wait_for`: in Python 3.11 it loses a cancellation that comes with the event.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PING_SECONDS):
                await lost.wait()
        unanswered = 0 if asker.link.heard >= pinged else unanswered + 1
        if unanswered >= _MOST_UNANSWERED and not lost.is_set():
            silence = f"said nothing for {unanswered * _PING_SECONDS:g} s"
            asker.link.abort(WireError(f"it has {silence}; it hangs, or blocks its event loop"))
            raise _EngineHangs(f"The engine has {silence}; it hangs, or blocks its event loop.")


@contextlib.asynccontextmanager
async def local_instance(
    child: Child, respawn: Callable[[], Child] | None
) -> AsyncIterator[tuple[LocalInstance, Ready]]:
    """An instance around a started child, and a future that says when it can take requests.

    The future raises what kept the first child from starting. Without `respawn` there is only this
    child. Leaving ends the child.
    """
    local = LocalInstance()
    ready: Ready = asyncio.get_running_loop().create_future()
    both: tuple[asyncio.Future[Any], ...] = (ready, local.ended)
    for future in both:  # seen, even when nobody waits for it
        future.add_done_callback(lambda done: done.cancelled() or done.exception())

    def fail(keeping: "asyncio.Task[None]") -> None:
        """A mistake of our own: who waits for the engine would wait for ever."""
        if not keeping.cancelled() and (error := keeping.exception()) is not None:
            for future in both:
                if not future.done():
                    future.set_exception(error)

    task = asyncio.create_task(local.keep(child, respawn, ready), name="engine")
    task.add_done_callback(fail)
    await asyncio.sleep(0)  # from its first step on it owns the child, and ends it
    try:
        yield local, ready
    finally:
        try:
            # An answer that was cut may be the reason to leave: its reader learns of what.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2 * _LAST_WORDS_SECONDS):
                    await local.explained.wait()
        finally:
            task.cancel()
            await asyncio.wait([task])


class _Lines(asyncio.Protocol):
    """What the engine writes, as lines of our log. The last ones tell why it died."""

    def __init__(self) -> None:
        self.tail: deque[str] = deque(maxlen=400)
        self.ended = asyncio.Event()  #: all has come: no process of the engine is left
        self._partial = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[-65536:]
        for line in lines:
            if text := line.decode(errors="replace").rstrip():
                self.tail.append(text)
                log.info("%s", text)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.ended.set()


async def _end(child: Child, grace: float, said: asyncio.Event) -> int:
    """Waits for a child whose socket is closed, kills its group if it stays. Its exit code.

    `said` is set once all that it wrote has been read, which is waited for: its last words matter.
    """
    process = child.process
    assert process.stdin is not None
    process.stdin.close()
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await _gone(process)
        signal_group(child)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await said.wait()
        await _gone(process)  # what has much memory takes seconds, in which others go on
    finally:
        code = kill(child)
    return code


async def _gone(process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:  # noqa: ASYNC110 (no event)
        await asyncio.sleep(0.005)
