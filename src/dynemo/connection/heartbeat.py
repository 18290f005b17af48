"""One timer for each connection: it pings the peer, detects silence, and closes idle connections.

Any byte from the peer is a sign of life. A process that was stopped itself, or on a machine asleep,
did not listen, and the missed bytes are still in the socket. So it starts to count from zero.
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
    """In seconds. Protocol 1 pings every 2 s, and gives up after 6 s."""

    ping: float = 1.5
    silence: float = 5.0  #: a peer is lost after this much silence, or without a HELLO after it
    idle: float = 60.0  #: the side that dialled closes a connection without streams after this


class Heartbeat:
    """Starts when the connection is established, stops by itself when the connection has closed.

    While `is_greeted` is False, the peer must send HELLO before `silence` is over, whatever else it
    sends. `is_idle` says that no stream runs on the connection; None for the side that was dialled.
    """

    def __init__(
        self,
        connection: FramedConnection,
        beat: Beat,
        is_idle: Callable[[], bool] | None = None,
    ) -> None:
        self.is_greeted = False
        self._connection = connection
        self._beat = beat
        self._is_idle = is_idle
        self._began = self._busy = monotonic()
        self._due = self._began
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_late(self) -> bool:
        """Whether the peer is late with its answer to a ping. It may still answer."""
        return monotonic() - self._connection.heard > self._beat.silence / 2

    def start(self) -> None:
        self._began = self._busy = self._due = monotonic()
        self._tick()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        now = monotonic()
        if not self._connection.is_open:
            return
        if now - self._due > self._beat.ping:
            self._connection.heard = now
        silent = now - (self._connection.heard if self.is_greeted else self._began)
        if silent >= self._beat.silence:
            self._connection.abort(WireError(f"The peer was silent for {silent:.1f} s."))
            return
        if self._is_over_idle(now):
            self._connection.close()
            return
        if self.is_greeted:
            self._connection.send(FrameKind.PING, 0)
        wait = min(self._beat.ping, self._beat.silence - silent)
        self._due = now + wait
        self._timer = asyncio.get_running_loop().call_later(wait, self._tick)

    def _is_over_idle(self, now: float) -> bool:
        if self._is_idle is None or not self._is_idle():
            self._busy = now
        return now - self._busy >= self._beat.idle
