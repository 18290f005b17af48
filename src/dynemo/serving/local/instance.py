"""A local instance: an engine host as a child process, with a supervisor that restarts it."""

import asyncio
import contextlib
import logging
import subprocess
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

from dynemo.connection.buffer import CancelReader, StreamBuffer
from dynemo.connection.client import HostClient, encode_request
from dynemo.connection.prefill import PrefillPace
from dynemo.errors import (
    DynemoError,
    EngineError,
    EngineLost,
    EngineNotLoaded,
    EngineStalled,
    InstanceAway,
    ModelError,
    UsageError,
)
from dynemo.messages.answer import Delta
from dynemo.messages.records import Instance, Load
from dynemo.messages.request import Request
from dynemo.serving.instance import InstanceStatus
from dynemo.serving.local.child import Child, kill, signal_group
from dynemo.serving.local.last_lines import complaint, ending
from dynemo.serving.local.watchdog import watch
from dynemo.spelling import with_reason

log = logging.getLogger("dynemo.engine")

_GRACE = 5.0  # seconds for an engine to end in order
_BACKOFF = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
_OUTPUT_SECONDS = 0.5  # to read the rest of a dead engine's output
_STEADY_SECONDS = 60.0  # an engine that ran this long restarts with the first step of the backoff

Ready = asyncio.Future[Instance]  #: fails with the reason if the first child does not start
Ended = asyncio.Future[None]  #: fails when the engine stops permanently; pending across restarts


class LocalInstance:
    """A `Backend` whose engine runs in a child process. Made by `local_instance`."""

    moves = 0  # there is no other instance

    def __init__(self, stall_seconds: float = 0.0) -> None:
        self._client: HostClient | None = None
        self._stall_seconds = stall_seconds
        self._pace = PrefillPace()
        self.stalls = 0  #: how often the engine made no progress
        self._trouble = "loading"  # a word, or sentences
        self.up = asyncio.Event()  #: set while it can take requests
        self.down = asyncio.Event()  #: set while it cannot
        self.down.set()
        self.restarts = 0
        #: Cleared between the death of an engine and its log line that says why.
        self.explained = asyncio.Event()
        self.explained.set()
        #: Fails when the engine stops permanently; pending across restarts.
        self.ended: Ended = asyncio.get_running_loop().create_future()

    @property
    def instance(self) -> Instance | None:
        client = self._client  # a thread that prepares a long prompt reads it too
        return client.greeted.result() if client is not None else None

    @property
    def slots(self) -> int:
        instance = self.instance
        return 0 if instance is None else instance.slots

    @property
    def instance_classes(self) -> list[Instance]:
        instance = self.instance
        return [] if instance is None else [instance]

    @property
    def load(self) -> Load:
        return self._client.load if self._client is not None else Load()

    @property
    def instances(self) -> list[InstanceStatus]:
        instance = self.instance
        return [] if instance is None else [InstanceStatus(instance, self.load)]

    @property
    def trouble(self) -> str:
        return "" if self._client is not None else self._trouble

    def generate(
        self,
        request: Request,
        cancel_reader: CancelReader | None = None,
        deadline: float | None = None,  # noqa: ARG002 (nothing here waits)
    ) -> AsyncGenerator[Delta, None]:
        return self.ask(encode_request(request), StreamBuffer(cancel_reader))

    def ask(self, request: bytes, buffer: StreamBuffer) -> AsyncGenerator[Delta, None]:
        """See `HostClient.ask`."""
        if self._client is None:
            raise InstanceAway(with_reason("The engine takes no requests now", self._trouble))
        return self._client.ask(request, buffer)

    def _set_client(self, client: HostClient | None) -> None:
        """Uses this client for the next requests. None means that no engine is running."""
        self._client = client
        for event, is_set in ((self.up, client is not None), (self.down, client is None)):
            if is_set:
                event.set()
            else:
                event.clear()

    async def keep(self, child: Child, respawn: Callable[[], Child] | None, ready: Ready) -> None:
        """Serves with `child`, then with what `respawn` makes each time the last one has died.

        Sets `ready` once. If the first child does not start, `ready` fails with the reason, and
        this returns.
        """
        failures = 0
        while True:
            started = time.monotonic()
            problem = await self._live(child, ready)
            if not ready.done():
                ready.set_exception(problem)
                return
            if respawn is None:
                self._trouble = str(problem)
                self.ended.set_exception(problem)
                return
            if time.monotonic() - started > _STEADY_SECONDS:
                failures = 0
            next_child = None
            while next_child is None:
                delay = _BACKOFF[min(failures, len(_BACKOFF) - 1)]
                failures += 1
                self._trouble = f"{problem} Restarting it."
                log.error("%s Restarting it in %.1f s.", problem, delay)
                await asyncio.sleep(delay)
                try:
                    next_child = respawn()
                except OSError as error:
                    problem = EngineLost(f"The engine cannot be started: {error.strerror}.")
                except UsageError as error:  # the folder for its files is full, say
                    problem = EngineLost(f"The engine cannot be started. {error}")
            child = next_child
            self.restarts += 1

    async def _live(self, child: Child, ready: Ready) -> DynemoError:
        """Runs one child until it ends. Returns why it ended."""
        lost = asyncio.Event()
        lines = _Lines()

        def on_lost() -> None:
            lost.set()
            if self._client is client:  # it was up, and we did not end it
                self.explained.clear()

        client = HostClient(on_lost, self._pace)
        problem: DynemoError | None = None
        pipe: asyncio.BaseTransport | None = None
        try:
            loop = asyncio.get_running_loop()
            await loop.create_unix_connection(lambda: client.connection, sock=child.sock)
            pipe, _ = await loop.connect_read_pipe(lambda: lines, child.process.stdout)
            instance = await asyncio.shield(client.greeted)
            self._set_client(client)
            if not ready.done():
                ready.set_result(instance)
            await watch(client, child.process.pid, lost, self._stall_seconds)
        except EngineStalled as error:
            problem = error
            self.stalls += 1
            client.give_up(error)
        except DynemoError as error:
            problem = error
        except OSError as error:
            problem = EngineLost(f"The engine cannot be reached: {error.strerror}.")
        finally:
            if client.is_greeted:  # it was not loading; its exit code is known later
                self._trouble = str(problem or "The engine has ended.")
            self._set_client(None)
            # It ends by itself if it has loaded or has closed the connection; not while it loads.
            is_orderly = not isinstance(problem, EngineStalled) and (
                client.is_greeted or lost.is_set()
            )
            client.connection.close()
            code = await _end(child, _GRACE if is_orderly else 0.0, lines.ended)
            if pipe is not None:
                pipe.close()
            self.explained.set()
        return _reason(problem, ending(code, lines.tail), complaint(lines.tail), client.is_greeted)


def _reason(problem: DynemoError | None, ended: str, note: str, has_loaded: bool) -> DynemoError:
    """Why an engine has ended."""
    if isinstance(problem, ModelError):
        return ModelError(f"{problem}{note}")
    if problem is None or type(problem) is EngineLost:
        return (EngineLost if has_loaded else EngineNotLoaded)(ended)
    if isinstance(problem, EngineError) and not has_loaded:
        return EngineNotLoaded(f"The engine could not load. {problem}")
    return problem


@contextlib.asynccontextmanager
async def local_instance(
    child: Child, respawn: Callable[[], Child] | None, stall_seconds: float = 0.0
) -> AsyncIterator[tuple[LocalInstance, Ready]]:
    """An instance of a started child, and a future that resolves when it can take requests.

    The future fails with the reason if the first child does not start. Without `respawn`, nothing
    restarts the child. `stall_seconds`: see `watch`. Leaving ends the child.
    """
    local = LocalInstance(stall_seconds)
    ready: Ready = asyncio.get_running_loop().create_future()
    both: tuple[asyncio.Future[Any], ...] = (ready, local.ended)
    for future in both:  # retrieves the exception, in case nobody waits
        future.add_done_callback(lambda done: done.cancelled() or done.exception())

    def fail(keeping: "asyncio.Task[None]") -> None:
        """A bug: without this, tasks that wait for the engine would wait forever."""
        if not keeping.cancelled() and (error := keeping.exception()) is not None:
            for future in both:
                if not future.done():
                    future.set_exception(error)

    task = asyncio.create_task(local.keep(child, respawn, ready), name="engine")
    task.add_done_callback(fail)
    await asyncio.sleep(0)  # after its first step, the task owns the child and ends it
    try:
        yield local, ready
    finally:
        try:
            # Perhaps a lost answer is the reason to leave: its reader may still need the cause.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2 * _OUTPUT_SECONDS):
                    await local.explained.wait()
        finally:
            task.cancel()
            await asyncio.wait([task])


class _Lines(asyncio.Protocol):
    """The engine's output, as lines of our log. The last lines say why it died."""

    def __init__(self) -> None:
        self.tail: deque[str] = deque(maxlen=400)
        self.ended = asyncio.Event()  #: set when no process of the engine is left
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


async def _end(child: Child, grace: float, output_read: asyncio.Event) -> int:
    """Waits for a child whose socket is closed, and kills its group after `grace`. Its exit code.

    `output_read` is set when all of its output has been read: the last lines say why it died.
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
            async with asyncio.timeout(_OUTPUT_SECONDS):
                await output_read.wait()
        await _gone(process)  # not blocking: a process with much memory takes seconds to end
    finally:
        code = kill(child)
    return code


async def _gone(process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:  # noqa: ASYNC110 (no event)
        await asyncio.sleep(0.005)
