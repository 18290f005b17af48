"""Work on requests in a few threads, for which clients take turns."""

import asyncio
from collections.abc import Callable
from itertools import count
from time import monotonic
from typing import TypeVar

from dynemo.serving.fair_queue import Entry, FairQueue

T = TypeVar("T")


class Turns:
    """Used in one event loop."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue()
        self._arrivals = count()

    async def in_thread(self, client: str, work: Callable[[], T]) -> T:
        """Runs `work` in a thread as soon as there is a place. The client with the fewest places
        is next.

        A caller that is cancelled leaves at once. Its place is free when its thread has ended.
        """
        await self._enter(client)
        began = monotonic()
        working = asyncio.get_running_loop().run_in_executor(None, work)

        def leave(done: asyncio.Future[T]) -> None:
            self._leave(client, monotonic() - began)
            if not done.cancelled():
                done.exception()  # nobody may be left who takes it

        working.add_done_callback(leave)
        return await asyncio.shield(working)

    async def _enter(self, client: str) -> None:
        if not len(self._queue) and self._queue.running < self._places:
            self._queue.started(client)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = Entry(0, next(self._arrivals), turn)
        self._queue.push(client, entry)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._queue.discard(client, entry)
            else:  # its turn came in the same moment
                self._leave(client, 0.0)
            raise

    def _leave(self, client: str, seconds: float) -> None:
        self._queue.ended(client, seconds)
        while len(self._queue) and self._queue.running < self._places:
            other, entry = self._queue.pop()
            if entry.item.cancelled():  # its task has not run yet
                self._queue.ended(other, 0.0)
            else:
                entry.item.set_result(None)
