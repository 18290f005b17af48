"""The local engine as a `Backend` that sends requests again after the engine has restarted."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from dynemo.connection.buffer import CancelReader
from dynemo.errors import DynemoError, EngineLost, InstanceAway
from dynemo.messages.answer import Delta
from dynemo.messages.records import Instance, Load
from dynemo.messages.request import Request
from dynemo.serving.instance import InstanceStatus
from dynemo.serving.local.instance import LocalInstance
from dynemo.serving.migration import MigrationState, TextCodec
from dynemo.serving.suspects import Suspects

log = logging.getLogger("dynemo.engine")

#: How often one request may lose its engine.
_LIMIT = 3
_PAUSE = 0.02  #: seconds in which the local instance notices that its engine has died


class LocalBackend:
    """A `Backend` over one local instance.

    If its engine dies, each answer continues on the next engine, if that one starts in time. A pool
    does the same with another instance.
    """

    def __init__(self, local: LocalInstance, codec: TextCodec) -> None:
        self._local = local
        self._codec = codec
        self._suspects = Suspects()
        self._last: list[Instance] = []
        self.moves = 0

    @property
    def instance(self) -> Instance | None:
        return self._local.instance

    @property
    def slots(self) -> int:
        return self._local.slots

    @property
    def instance_classes(self) -> list[Instance]:
        """Those of the last engine while it is started again: new requests wait for a moment."""
        found = self._local.instance_classes
        if found or self._local.ended.done():
            self._last = found
        return self._last

    @property
    def load(self) -> Load:
        return self._local.load

    @property
    def instances(self) -> list[InstanceStatus]:
        return self._local.instances

    @property
    def restarts(self) -> int:
        return self._local.restarts

    @property
    def stalls(self) -> int:
        return self._local.stalls

    @property
    def trouble(self) -> str:
        return self._local.trouble

    async def generate(
        self,
        request: Request,
        cancel_reader: CancelReader | None = None,
        deadline: float | None = None,
    ) -> AsyncGenerator[Delta, None]:
        """See `Backend.generate`."""
        progress = MigrationState(request, self._codec, deadline, limit=_LIMIT)
        problem: DynemoError = EngineLost("The engine has ended.")
        while True:
            attempt = self._suspects.attempt("", progress)
            try:
                await attempt.start()
                rest = progress.rest()
                given = progress.in_characters(self._local.generate(rest, cancel_reader))
                async with aclosing(given) as deltas:
                    async for delta in deltas:
                        progress.take(delta)
                        if attempt.is_watched:
                            attempt.check()
                        yield progress.adjusted(delta)
                        if delta.finish is not None:
                            return
            except InstanceAway as error:
                if progress.deadline is None:
                    problem = error
                    progress.wait_at_least(error.returns_within)
            except EngineLost as error:
                if (finish := progress.complete()) is not None:
                    yield Delta(finish=finish)
                    return
                attempt.lost(error)
                progress.search()
                self.moves += 1
                problem = error
            finally:
                attempt.end()
            await self._restarted(progress, problem)
            progress.begin_anew()

    async def _restarted(self, progress: MigrationState, problem: DynemoError) -> None:
        """Returns when an engine takes requests. Raises `problem` if none does in time."""
        await asyncio.sleep(_PAUSE)
        up = asyncio.ensure_future(self._local.up.wait())
        try:
            assert progress.deadline is not None
            seconds = progress.deadline - asyncio.get_running_loop().time()
            either: list[asyncio.Future[Any]] = [up, self._local.ended]
            await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not up.done():
                raise problem
        finally:
            up.cancel()
