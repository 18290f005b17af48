"""One timer a connection: asks whether the peer lives, notices when it is silent, and when idle.

Any byte counts as a sign of life. A loop that was itself away (a stopped process, a machine asleep)
has not listened: what it missed still lies in the socket, so the silence is counted anew.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from dynemo.connection.framed import FramedConnection
from dynemo.errors import WireError
from dynemo.wire.frames import FrameKind


@dataclass(frozen=True)
class Beat:
    """In seconds. Both sides of a connection keep the same."""

    ping: float = 2.0
    silence: float = 6.0  #: a peer that was not heard for so long is lost; one that must greet, too
    idle: float = 60.0  #: the side that dialled closes a connection without streams after this


class Heartbeat:
    """Started when the link is connected; stops itself when the link has closed.

    `is_greeted` false: the peer has to say who it is before the silence is up, whatever else it
    sends. `idle` says that nothing runs on the connection; None for the side that was dialled.
    """

    def __init__(
        self, link: FramedConnection, beat: Beat, idle: Callable[[], bool] | None = None
    ) -> None:
        self.is_greeted = False
        self._link = link
        self._beat = beat
        self._idle = idle
        self._began = self._busy = monotonic()
        self._due = self._began
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_late(self) -> bool:
        """Whether the peer owes an answer to a ping: no ground yet to give it up."""
        return monotonic() - self._link.heard > self._beat.silence / 2

    def start(self) -> None:
        self._began = self._busy = self._due = monotonic()
        self._tick()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        now = monotonic()
        if not self._link.is_open:
            return
        if now - self._due > self._beat.ping:
            self._link.heard = now
        silent = now - (self._link.heard if self.is_greeted else self._began)
        if silent >= self._beat.silence:
            self._link.abort(WireError(f"the peer was silent for {silent:.1f} s"))
            return
        if self._is_idle(now):
            self._link.close()
            return
        if self.is_greeted:
            self._link.send(FrameKind.PING, 0)
        wait = min(self._beat.ping, self._beat.silence - silent)
        self._due = now + wait
        self._timer = asyncio.get_running_loop().call_later(wait, self._tick)

    def _is_idle(self, now: float) -> bool:
        if self._idle is None or not self._idle():
            self._busy = now
        return now - self._busy >= self._beat.idle
