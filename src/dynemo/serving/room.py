"""The room of one model: which sequences its engines have, and which wait for their turn.

The engines get as many sequences as they compute at once, and a few more, so that a free slot finds
its next sequence there. All others wait here, where clients take turns (`fair_queue.py`). So one
client's hundred choices do not stand before another client's question.
"""

import asyncio
import math
import sys
from dataclasses import dataclass
from itertools import count
from time import monotonic

from dynemo.errors import Overloaded
from dynemo.limits import QUEUE_SECONDS
from dynemo.serving.fair_queue import Entry, FairQueue
from dynemo.serving.instance import Backend

#: Seconds between two looks for more room while requests wait: workers come, and loads change.
_LOOK_SECONDS = 0.25
#: Seconds that requests wait if the model has no instance: long enough for an engine to restart.
_AWAY_SECONDS = 10.0
#: How long after the first waiting request others still belong to the same burst.
_BURST_SECONDS = 0.25
_BURST_PER_SLOT = 16
_WEIGHT = 0.1  # of one sequence in the mean
_LONGEST_RETRY = 600  # seconds


@dataclass(slots=True)
class Place:
    """The place of one request among all others."""

    client: str = ""  #: clients take turns by this name
    deadline: float | None = None  #: loop time at which the request ends
    priority: int = 0  #: lower is earlier, among the requests of this client
    model: str = ""  #: a served model; empty before it is known
    arrival: int = 0  #: the number of the request in its room; 0 before it asks for room
    waited: float | None = None  #: seconds until its first sequence went to the engine


class Room:
    """Created with its model. `check` may be called in any thread, the rest in the event loop."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue()
        self._arrivals = count(1)
        self._is_looking = False
        self._away_since: float | None = None
        self._waiting_since = 0.0  # when the first one came that waited
        self._mean = 0.0  # seconds that a sequence holds the engine, of late

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn. A request with many choices counts once."""
        return len(self._queue)

    @property
    def is_free(self) -> bool:
        """Whether a sequence would start at once."""
        limit = self._limit()
        return limit is not None and self._is_free(limit)

    def check(self, client: str, bound: float | None) -> None:
        """Raises Overloaded if the next request of this client would be refused.

        At most `bound` requests wait; None derives it from the slots (see `_default_bound`). A
        client of which nothing waits may add one request beyond it, until twice as many wait:
        others may fill the queue, but they do not keep it out.
        """
        limit = self._limit()
        if limit is not None and not self._is_free(limit):
            self._check_queue(client, bound)

    async def enter(self, place: Place, bound: float | None) -> float:
        """Waits for the turn of the request's next sequence. Returns its start, for `leave`.

        Only the first sequence of a request can be refused, or wait too long: raises Overloaded.
        """
        now = monotonic()
        limit = self._limit()
        # Without an instance, the backend itself says why.
        if limit is None or self._is_free(limit):
            self._queue.started(place.client)
            started = now
        else:
            if not place.arrival:
                self._check_queue(place.client, bound)
            started = await self._wait(place)
        if place.waited is None:
            place.waited = started - now
        return started

    def leave(self, place: Place, started: float) -> None:
        """Frees what `enter` has given."""
        seconds = monotonic() - started
        self._mean += (seconds - self._mean) * (_WEIGHT if self._mean else 1.0)
        self._queue.ended(place.client, seconds)
        if len(self._queue):
            self._admit()

    async def _wait(self, place: Place) -> float:
        is_first = not place.arrival
        place.arrival = place.arrival or next(self._arrivals)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = Entry(place.priority, place.arrival, turn)
        if not len(self._queue):
            self._waiting_since = monotonic()
        self._queue.push(place.client, entry)
        self._admit()
        try:
            async with asyncio.timeout(QUEUE_SECONDS if is_first else None):
                await turn
        except BaseException as error:
            if turn.cancelled():
                self._queue.discard(place.client, entry)
            else:  # its turn came in the same moment
                self.leave(place, monotonic())
            if isinstance(error, TimeoutError):
                raise Overloaded(
                    f"The request waited {QUEUE_SECONDS:g} s for its turn. Try again later.",
                    retry_after=self._retry_after(),
                ) from None
            raise
        return monotonic()

    def _admit(self) -> None:
        """Starts the sequences that the engines have room for."""
        limit = self._limit()
        if limit is None:
            self._away_since = self._away_since or monotonic()
            # After that time, each gets the reason from the backend.
            limit = 0 if monotonic() - self._away_since < _AWAY_SECONDS else sys.maxsize
        else:
            self._away_since = None
        while len(self._queue) and self._queue.running < limit:
            client, entry = self._queue.pop()
            if entry.item.cancelled():  # its client has left, and its task has not run yet
                self._queue.ended(client, 0.0)
            else:
                entry.item.set_result(None)
        if len(self._queue) and not self._is_looking:
            self._is_looking = True
            asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._is_looking = False
        if len(self._queue):
            self._admit()

    def _is_free(self, limit: int) -> bool:
        return not len(self._queue) and self._queue.running < limit

    def _limit(self) -> int | None:
        """Returns how many sequences the engines may hold at once, or None without an instance."""
        if self._backend.instance is None:
            return None
        slots = self._backend.slots
        return slots + max(1, slots // 8)

    def _check_queue(self, client: str, bound: float | None) -> None:
        waiting = len(self._queue)
        if bound is None:
            is_burst = not waiting or monotonic() - self._waiting_since < _BURST_SECONDS
            bound = _default_bound(self._backend.slots, is_burst=is_burst)
        if waiting < bound or (waiting < 2 * bound and not self._queue.has(client)):
            return
        raise Overloaded(
            f"The server is busy: {waiting} requests wait for their turn. Try again later.",
            retry_after=self._retry_after(),
        )

    def _retry_after(self) -> int:
        """The seconds until the requests that wait now have had their turn."""
        seconds = len(self._queue) * self._mean / (self._limit() or 1)
        return max(1, min(math.ceil(seconds), _LONGEST_RETRY))


def _default_bound(slots: int, *, is_burst: bool) -> int:
    """Returns how many requests may wait if the user has set no bound.

    Half as many wait as run, so that a wait is short beside an answer. A server of few slots takes
    about eight requests in all: one chat client sends several at once. A burst may be long: a
    script that sends its requests all at once expects to wait.
    """
    return _BURST_PER_SLOT * slots if is_burst else max(slots // 2, 8 - slots)
