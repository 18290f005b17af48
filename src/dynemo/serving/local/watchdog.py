"""Notices an engine that has work and makes no progress, or that does not answer at all.

Progress is a frame of any stream, or a part of a prompt that the engine reports as computed. An
engine may be silent for `--stall-timeout`, and for ten times the time that its prompts should take.
Time counts in ticks, so that a runner that was itself stopped does not blame its engine.
"""

import asyncio
import contextlib
from pathlib import Path
from time import monotonic

from dynemo.connection.client import HostClient
from dynemo.errors import EngineStalled

#: Seconds between two looks, each with a ping.
TICK = 1.0
#: Ticks without an answer after which the engine counts as hanging.
_MAX_UNANSWERED = 10
#: The same, if it has work and its process is stopped.
_MAX_STOPPED = 2
_PREFILL_FACTOR = 10
#: Clients that give up and come again must not restart the count. So the times of several
#: stretches of work without progress add up, to this many times the limit of one.
_STRETCHES = 3


class StallClock:
    """Counts the time that an engine has work without progress."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._limit = seconds
        self._total = 0.0
        self.stretch = 0.0  #: seconds since the last progress, or since it got work

    def tick(self, seconds: float, *, is_busy: bool, has_progressed: bool, prefill: float) -> bool:
        """Adds a tick. Returns whether the engine is stuck. `prefill` is in expected seconds."""
        if has_progressed:
            self._total = self.stretch = 0.0
            self._limit = self._seconds
        elif not is_busy:
            self.stretch = 0.0
        else:
            self._total += seconds
            self.stretch += seconds
            limit = max(self._seconds, _PREFILL_FACTOR * prefill)
            self._limit = max(self._limit, limit)
            return self.stretch >= limit or self._total >= _STRETCHES * self._limit
        return False


async def watch(client: HostClient, pid: int, lost: asyncio.Event, stall_seconds: float) -> None:
    """Returns when the connection is lost. Raises EngineStalled if the engine must be ended.

    `stall_seconds` 0: it may be busy without progress for ever.
    """
    clock = StallClock(stall_seconds)
    unanswered, active, progress = 0, client.active_at, client.progress
    while not lost.is_set():
        pinged = monotonic()
        client.ping()
        # Not `wait_for`: in Python 3.11 it can lose a cancellation.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TICK):
                await lost.wait()
        unanswered = 0 if client.connection.heard >= pinged else unanswered + 1
        has_progressed = (client.active_at, client.progress) != (active, progress)
        active, progress = client.active_at, client.progress
        is_stuck = clock.tick(
            TICK,
            is_busy=client.is_busy,
            has_progressed=has_progressed,
            prefill=client.expected_prefill,
        )
        if lost.is_set():
            return
        if unanswered >= _MAX_UNANSWERED:
            raise EngineStalled(
                f"The engine has not answered for {unanswered * TICK:g} s; it hangs, or blocks its "
                "event loop."
            )
        if client.is_busy and unanswered >= _MAX_STOPPED and is_stopped(pid):
            raise EngineStalled("The engine does not answer: its process is stopped.")
        if stall_seconds and is_stuck:
            raise EngineStalled(
                f"The engine has work and made no progress for {clock.stretch:g} s."
            )


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped the process. False where the system does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[:1] == ["T"]
