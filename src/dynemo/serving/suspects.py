"""Finds the request that ends engines, so that it cannot end all of them.

A request is on probation on an instance until its first token there. If an engine dies, the
suspects are the requests on probation; if there are none, all of its requests. The others are
cleared: they move, and that costs them none of their moves.

A suspect starts on an instance only when no other request is on probation there, and new requests
wait until it has its first token. It stays a suspect until it has more tokens than it had when the
engine died. So the next death points at few requests. A request that has ended two engines, the
second one as the only suspect and at a like place, fails. Kills from outside come at any place.

These waits are bounded; after them a request starts anyway.
"""

import asyncio
import contextlib
from asyncio import Future
from time import monotonic

from dynemo.errors import EngineLost, HandedBack, InstanceLost, RequestCrashedEngine
from dynemo.serving.migration import MigrationState

#: Seconds that a suspect waits to be alone, and that a new request waits for a suspect.
_SUSPECT_SECONDS = 10.0
_NEW_SECONDS = 2.0
#: A request that had run for less than these when the engine died is probably the cause. So is a
#: request that was a suspect before. Such a request is on probation until it is cleared.
_YOUNG_SECONDS = 1.0
_YOUNG_TOKENS = 16


class _Engine:
    """The requests on one engine, from its start to its death."""

    def __init__(self) -> None:
        self.started = 0
        self.on_probation: set[Attempt] = set()
        self.released: set[Attempt] = set()  # suspects after their probation
        self.suspects = 0  # on probation, or waiting for it
        self.is_dead = False  # then nothing here changes any more
        self._waiting: list[Future[None]] = []

    async def change(self) -> None:
        future: Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    def changed(self) -> None:
        """Wakes those that wait, in their order."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


class Suspects:
    """The attempts on all instances of one model."""

    def __init__(self) -> None:
        self._engines: dict[str, _Engine] = {}  # by instance

    def attempt(self, instance_id: str, progress: MigrationState) -> "Attempt":
        """One request on one instance. `end` it in any case."""
        return Attempt(self, instance_id, progress)

    def has_suspect(self, instance_id: str) -> bool:
        """Whether a suspect runs or waits there; others should go elsewhere."""
        engine = self._engines.get(instance_id)
        return engine is not None and engine.suspects > 0

    def engine(self, instance_id: str) -> _Engine:
        return self._engines.setdefault(instance_id, _Engine())

    def died(self, instance_id: str, engine: _Engine) -> None:
        if self._engines.get(instance_id) is engine:
            del self._engines[instance_id]
        engine.is_dead = True
        engine.changed()

    def left(self, instance_id: str, engine: _Engine) -> None:
        if not (engine.started or engine.suspects) and self._engines.get(instance_id) is engine:
            del self._engines[instance_id]


class Attempt:
    """One request on one instance."""

    __slots__ = (
        "_counts",
        "_engine",
        "_has_started",
        "_instance_id",
        "_progress",
        "_started_at",
        "_suspects",
        "has_answered",
        "has_waited",
        "is_watched",
    )

    def __init__(self, suspects: Suspects, instance_id: str, progress: MigrationState) -> None:
        self._suspects = suspects
        self._instance_id = instance_id
        self._progress = progress
        self._has_started = False
        self._counts = False  # among the engine's suspects
        self._started_at = 0.0
        self.is_watched = True  #: tokens matter: `check` it after each delta
        self.has_answered = False  #: set by the caller: a delta has come
        self.has_waited = False  #: for its turn, so the instance may have changed
        self._enter()

    async def start(self) -> None:
        """Returns when the request may be sent to the instance."""
        if not self._may_start():
            self.has_waited = True
            await self._wait()
            if self._progress.deadline is not None:
                self._progress.search()  # the wait was for its turn
        self._has_started = True
        self._started_at = monotonic()
        self._engine.started += 1
        self._engine.on_probation.add(self)

    def check(self) -> None:
        """Ends its probation, and then its time as a suspect, if it has the tokens for that."""
        progress, engine = self._progress, self._engine
        here = progress.count_here
        if here >= progress.probation and not engine.is_dead:
            self._leave_probation()
            if here < progress.cleared_at:
                engine.released.add(self)
            else:
                engine.released.discard(self)
                self.is_watched = False

    def lost(self, error: EngineLost) -> None:
        """Its instance was lost. Raises the error that ends the request, if it may not move."""
        progress, engine = self._progress, self._engine
        if isinstance(error, HandedBack):
            return
        suspects = engine.on_probation | engine.released
        if isinstance(error, InstanceLost):
            progress.is_suspect = progress.is_suspect or self in engine.on_probation
            if progress.count_here >= _YOUNG_TOKENS:
                progress.moves = 0  # it is not the cause, so the count restarts
        else:
            self._suspects.died(self._instance_id, engine)
            if suspects and self not in suspects:
                return
            self._blame(len(suspects) or engine.started)
        progress.moves += 1
        if progress.moves > progress.limit:
            raise self._crashed() if progress.deaths > 1 else error

    def end(self) -> None:
        """The request has left the instance."""
        self._leave_probation()
        engine = self._engine
        if not engine.is_dead:
            engine.released.discard(self)
            engine.started -= self._has_started
            self._suspects.left(self._instance_id, engine)

    def _blame(self, suspects: int) -> None:
        progress, here = self._progress, self._progress.count_here
        progress.deaths += 1
        progress.is_suspect = True
        if progress.deaths > 1 and suspects == 1 and _is_alike(here, progress.cleared_at - 1):
            raise self._crashed()
        age = monotonic() - self._started_at
        is_young = age < _YOUNG_SECONDS and here < _YOUNG_TOKENS
        progress.cleared_at = here + 1
        progress.probation = here + 1 if is_young or progress.deaths > 1 else 1

    def _crashed(self) -> RequestCrashedEngine:
        return RequestCrashedEngine(
            f"The engine ended {self._progress.deaths} times while it worked on this request, "
            "which is not tried again. Change the prompt or its settings."
        )

    def _enter(self) -> None:
        self._engine = self._suspects.engine(self._instance_id)
        self._counts = self._progress.is_suspect
        self._engine.suspects += self._counts

    def _may_start(self) -> bool:
        engine = self._engine
        return not engine.on_probation if self._counts else not engine.suspects

    async def _wait(self) -> None:
        seconds = _SUSPECT_SECONDS if self._counts else _NEW_SECONDS
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._may_start():
                    await self._engine.change()
                    if self._engine.is_dead:
                        self._enter()

    def _leave_probation(self) -> None:
        engine = self._engine
        if engine.is_dead:
            return
        if self._counts or self in engine.on_probation:
            engine.on_probation.discard(self)
            engine.suspects -= self._counts
            self._counts = False
            engine.changed()


def _is_alike(here: int, before: int) -> bool:
    """Whether two deaths at these numbers of tokens may have the same cause. If the cause is the
    text, the second death comes at once, because the second attempt has the text of the first."""
    return here <= 1 or abs(here - before) <= max(3, before // 8)
