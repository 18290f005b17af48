"""The ingress's connection to one worker: the worker's answers arrive here.

Anything but a valid HELLO closes it at first. After HELLO, a frame that breaks a rule is dropped,
and the first one is logged. If the frame belongs to an open stream, that stream alone fails. Only
bytes that form no frame close the connection then.
"""

import hmac
import logging
from typing import Protocol

from dynemo.connection.buffer import StreamBuffer
from dynemo.connection.client import StreamClient
from dynemo.connection.heartbeat import Beat, Heartbeat
from dynemo.connection.logged_peers import LoggedPeers
from dynemo.errors import DynemoError, EngineLost, HandedBack, InstanceLost, WireError
from dynemo.foreign import msgpack_decoder
from dynemo.messages.wire import Greeting
from dynemo.wire import versions
from dynemo.wire.failures import decode_error, encode_error, reason_of
from dynemo.wire.frames import MAX_BODY, Frame, FrameKind
from dynemo.wire.state import ConnectionState, StreamState
from dynemo.wire.versions import negotiate, spoken_by

log = logging.getLogger("dynemo.responses")

#: The longest body that a peer may send before its HELLO.
MAX_UNGREETED = 4096

decode_greeting = msgpack_decoder(Greeting)


class Listener(Protocol):
    """The ingress as its connections see it: pending streams, and connections."""

    key: bytes
    refused: LoggedPeers  #: instance ids of workers whose HELLO was refused

    def is_pending(self, stream: int, instance_id: str) -> bool:
        """Whether that instance was asked, and has not opened the stream yet."""
        ...

    def open(
        self, stream: int, token: bytes, connection: "WorkerConnection"
    ) -> "OpenedStream | None":
        """Binds the pending stream to the connection; None if the token does not open it."""
        ...

    def refuse(self, stream: int, error: DynemoError) -> None:
        """Ends a pending stream with the worker's error."""
        ...

    def was_pending(self, stream: int, token: bytes) -> bool:
        """Whether the stream was given up lately: a worker that opens it is late, not wrong."""
        ...

    def greeted(self, connection: "WorkerConnection") -> None: ...

    def reported(self, connection: "WorkerConnection") -> None:
        """The worker has sent a load."""
        ...

    def lost(self, connection: "WorkerConnection") -> None: ...


class OpenedStream(Protocol):
    buffer: StreamBuffer
    request: bytes  #: to send on the stream; empty if the envelope carried it


class WorkerConnection(StreamClient):
    """The connection to a worker, whichever side dialled. `instance_id` is empty before HELLO."""

    def __init__(
        self,
        listener: Listener,
        beat: Beat,
        *,
        is_dialled_here: bool = False,
        expected_id: str = "",
    ) -> None:
        super().__init__("The worker")
        self.instance_id = ""
        self.opened_at = 0.0  #: when the worker last opened a stream, in time or too late
        self.version = 0  #: of the protocol, on which both sides agreed; 0 before HELLO
        self.refusal = ""  #: why one side refused the other's HELLO
        self._listener = listener
        self._expected_id = expected_id  # of the worker that was dialled; empty: any
        self._has_complained = False
        self.connection.cap(MAX_UNGREETED)
        is_idle = self.is_idle if is_dialled_here else None
        self.heartbeat = Heartbeat(self.connection, beat, is_idle)
        self.connection.on_connected = self.heartbeat.start

    @property
    def is_draining(self) -> bool:
        return self.state is ConnectionState.DRAINING

    def is_idle(self) -> bool:
        return not self._buffers

    def state_of(self, stream: int) -> StreamState:
        if stream in self._buffers:
            return StreamState.OPEN
        is_pending = self._listener.is_pending(stream, self.instance_id)
        return StreamState.PENDING if is_pending else StreamState.CLOSED

    def on_connection(self, frame: Frame) -> None:
        if frame.kind == FrameKind.HELLO:
            self._greet(decode_greeting(frame.body))
        elif frame.kind == FrameKind.PING:
            self.connection.send(FrameKind.PONG, 0)
        elif frame.kind == FrameKind.ERROR:
            self.refusal = reason_of(frame.body)
            reason = WireError("The worker gave up the connection.") if self.instance_id else None
            self.connection.abort(reason)
        else:
            super().on_connection(frame)
            if frame.kind == FrameKind.PONG:
                self._listener.reported(self)

    def _greet(self, greeting: Greeting) -> None:
        if not hmac.compare_digest(greeting.key, self._listener.key):
            raise WireError("The HELLO has a wrong key.")
        if not greeting.instance or self._expected_id not in ("", greeting.instance):
            raise WireError("The HELLO names another instance.")
        try:
            self.version = negotiate(greeting.instance, spoken_by(greeting), versions.SPOKEN)
        except WireError as error:
            self._refuse_hello(greeting.instance, error)
            return
        self.instance_id = greeting.instance
        self._peer = f"Worker {greeting.instance[:8]}"
        self.connection.cap(MAX_BODY)
        self.heartbeat.is_greeted = True
        self.connection.send(FrameKind.PING, 0)  # tells the worker at once that we accept its HELLO
        self._listener.greeted(self)

    def _refuse_hello(self, instance_id: str, error: WireError) -> None:
        if not self._expected_id and self._listener.refused.is_new(instance_id):
            log.warning("%s", error)  # a connection that we dialled fails with `refusal` instead
        self.refusal = str(error)
        self.state = ConnectionState.CLOSED
        self.connection.send(FrameKind.ERROR, 0, encode_error(error))
        self.connection.close()

    def on_stream_not_open(self, state: StreamState, frame: Frame) -> None:
        if frame.kind == FrameKind.OPEN:
            self._open(frame)
        elif frame.kind == FrameKind.ERROR and state is StreamState.PENDING:
            self.on_refused(frame.stream, decode_error(frame.body))

    def on_refused(self, stream: int, error: DynemoError) -> None:
        """The worker refuses a pending stream."""
        self._listener.refuse(stream, error)

    def _open(self, frame: Frame) -> None:
        stream = frame.stream
        self.opened_at = self.connection.heard
        opened = self._listener.open(stream, frame.body, self)
        if opened is not None:
            self._buffers[stream] = opened.buffer
            if opened.request:
                self.connection.send(FrameKind.REQUEST, stream, opened.request)
            return
        # This also tells the worker that nobody waits for its answer any more.
        error = WireError(f"The token of stream {stream} is unknown, used or expired.")
        if not self._listener.was_pending(stream, frame.body):
            self._complain(error)
        self.connection.send(FrameKind.ERROR, stream, encode_error(error))

    def on_broken(self, frame: Frame, error: WireError) -> None:
        if not self.instance_id:
            raise error
        self._complain(error)
        if frame.kind != FrameKind.OPEN:
            self.fail(frame.stream, InstanceLost(f"{self._peer} broke the protocol. {error}"))

    def _complain(self, error: WireError) -> None:
        if not self._has_complained:
            self._has_complained = True
            log.warning("Dropped a frame from worker %s. %s", self.connection.peer, error)

    def _on_closed(self, error: Exception | None) -> None:
        self.heartbeat.stop()
        if isinstance(error, WireError):
            peer = self.connection.peer
            log.warning("Closed the connection to worker %s. %s", peer, error)
        super()._on_closed(error)

    def failure(self, error: Exception | None) -> EngineLost:
        if self.is_draining:
            return HandedBack(f"{self._peer} stopped before its answer ended.")
        return super().failure(error)

    def on_lost(self) -> None:
        self._listener.lost(self)
