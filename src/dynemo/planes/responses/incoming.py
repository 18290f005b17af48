"""The ingress's side of a connection to one worker: its answers come in here.

Anything but a valid HELLO closes it. After that, a frame that breaks a rule is dropped and said
once in the log; if it belongs to a stream that is open, that stream is lost, alone. Only bytes that
cannot be cut into frames any more close a connection whose peer has said who it is.
"""

import hmac
import logging
from typing import Protocol

from msgspec import msgpack

from dynemo.connection.buffer import StreamBuffer
from dynemo.connection.client import StreamClient
from dynemo.connection.framed import PROTOCOL
from dynemo.connection.heartbeat import Beat, Heartbeat
from dynemo.connection.server import failure
from dynemo.errors import EngineLost, WireError
from dynemo.messages.wire import Greeting
from dynemo.wire import state
from dynemo.wire.frames import MAX_BODY, Frame, FrameKind

log = logging.getLogger("dynemo.responses")

#: The longest body from a peer that has not said who it is.
MAX_UNGREETED = 4096

decode_greeting = msgpack.Decoder(Greeting).decode


class PendingStreams(Protocol):
    """What is awaited, and what was opened: the ingress as its connections see it."""

    key: bytes

    def opened(self, stream: int, token: bytes, connection: "WorkerConnection") -> "Opened | None":
        """The promise that the token fulfils, now bound to `connection`; None: there is none."""
        ...

    def was_awaited(self, stream: int, token: bytes) -> bool:
        """Whether that promise was given up lately: to be asked for it is no fault then."""
        ...

    def greeted(self, connection: "WorkerConnection") -> None: ...

    def lost(self, connection: "WorkerConnection") -> None: ...


class Opened(Protocol):
    buffer: StreamBuffer
    request: bytes  #: to be sent on the stream; empty: the worker has it


class WorkerConnection(StreamClient):
    """Made for each connection, whoever dialled it. `instance_id` is empty before HELLO."""

    def __init__(
        self,
        promises: PendingStreams,
        beat: Beat,
        *,
        is_dialled_here: bool = False,
        expected: str = "",
    ) -> None:
        super().__init__("The worker")
        self.instance_id = ""
        self.opened_at = 0.0  #: when a stream was last opened on it, in time or too late
        self._promises = promises
        self._expected = expected  # whose HELLO is awaited, where it is known
        self._has_complained = False
        self.link.cap(MAX_UNGREETED)
        self.heartbeat = Heartbeat(self.link, beat, self.is_idle if is_dialled_here else None)
        self.link.on_connected = self.heartbeat.start

    @property
    def is_draining(self) -> bool:
        return self.state is state.ConnectionState.DRAINING

    def is_idle(self) -> bool:
        return not self._buffers

    def on_connection(self, frame: Frame) -> None:
        if frame.kind == FrameKind.HELLO:
            self._greet(decode_greeting(frame.body))
        elif frame.kind == FrameKind.PING:
            self.link.send(FrameKind.PONG, 0)
        elif frame.kind == FrameKind.ERROR:
            self.link.abort(WireError("the peer has given up the connection"))
        else:
            super().on_connection(frame)

    def _greet(self, greeting: Greeting) -> None:
        if not hmac.compare_digest(greeting.key, self._promises.key):
            raise WireError("its HELLO has a wrong key")
        if greeting.protocol != PROTOCOL:
            raise WireError(f"it speaks protocol {greeting.protocol}, not {PROTOCOL}")
        if not greeting.instance or self._expected not in ("", greeting.instance):
            raise WireError("its HELLO names another instance")
        self.instance_id = greeting.instance
        self._peer = f"Worker {greeting.instance[:8]}"
        self.link.cap(MAX_BODY)
        self.heartbeat.is_greeted = True
        self.link.send(
            FrameKind.PING, 0
        )  # tells a worker at once that it has dialled the right one
        self._promises.greeted(self)

    def on_stream(self, frame: Frame) -> None:
        if frame.kind != FrameKind.OPEN:
            super().on_stream(frame)
            return
        state.stream_after(self.state, frame)
        if frame.stream in self._buffers:  # an ERROR would end the stream that runs
            raise WireError(f"stream {frame.stream} was opened a second time")
        self.opened_at = self.link.heard
        opened = self._promises.opened(frame.stream, frame.body, self)
        if opened is None:
            self._refuse(frame)
            return
        self._buffers[frame.stream] = opened.buffer
        if opened.request:
            self.link.send(FrameKind.REQUEST, frame.stream, opened.request)

    def _refuse(self, frame: Frame) -> None:
        """Also how a worker learns that nobody waits any more for what it was asked."""
        error = WireError(f"the token of stream {frame.stream} is unknown, used or expired")
        if not self._promises.was_awaited(frame.stream, frame.body):
            self._complain(error)
        self.link.send(FrameKind.ERROR, frame.stream, failure(error))

    def on_broken(self, frame: Frame, error: WireError) -> None:
        if not self.instance_id:
            raise error
        self._complain(error)
        if frame.kind != FrameKind.OPEN:
            self.fail(frame.stream, EngineLost(f"{self._peer} broke the protocol: {error}."))

    def _complain(self, error: WireError) -> None:
        if not self._has_complained:
            self._has_complained = True
            log.warning("%s: %s; dropped", self.link.peer, error)

    def _on_closed(self, reason: Exception | None) -> None:
        self.heartbeat.stop()
        if isinstance(reason, WireError):
            log.warning("%s: %s; the connection is closed", self.link.peer, reason)
        super()._on_closed(reason)

    def on_lost(self) -> None:
        self._promises.lost(self)
