"""A worker's connection to one ingress: its answers leave here."""

import asyncio
import logging
from collections.abc import Callable

from msgspec import msgpack

from dynemo.connection.framed import FramedConnection
from dynemo.connection.heartbeat import Beat, Heartbeat
from dynemo.connection.server import StreamServer
from dynemo.errors import Unavailable, WireError
from dynemo.messages.wire import Envelope, Greeting
from dynemo.wire import versions
from dynemo.wire.failures import encode_error, reason_of
from dynemo.wire.frames import Frame, FrameKind
from dynemo.wire.state import ConnectionState, Role, StreamState, connection_after, stream_after

log = logging.getLogger("dynemo.responses")

#: Seconds from OPEN to the REQUEST of a stream whose envelope did not carry it.
REQUEST_SECONDS = 10.0

_encode = msgpack.Encoder().encode


class IngressConnection:
    """The connection to an ingress, which this worker dialled or, with another `role`, accepted.

    `confirmed` resolves to whether the ingress accepted our HELLO; else `refusal` may say why not.
    """

    def __init__(
        self,
        make_server: Callable[[FramedConnection], StreamServer],
        beat: Beat,
        on_lost: Callable[["IngressConnection"], None],
        role: Role = Role.WORKER,
    ) -> None:
        self.connection = FramedConnection(self._on_frames, self._on_closed)
        self.server = make_server(self.connection)
        self.confirmed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.refusal = ""
        self.version = 0  #: of the protocol, on which both sides agreed; 0 before HELLO
        self.role = role
        is_dialled_here = role is Role.WORKER
        self.state = ConnectionState.OPEN if is_dialled_here else ConnectionState.GREETING
        self._on_lost = on_lost
        self._pending: dict[int, asyncio.TimerHandle] = {}  # streams in StreamState.PENDING
        self._has_complained = False
        is_idle = self.is_idle if is_dialled_here else None
        self.heartbeat = Heartbeat(self.connection, beat, is_idle)
        self.connection.on_connected = self.heartbeat.start

    def is_idle(self) -> bool:
        return not self.server and not self._pending

    def state_of(self, stream: int) -> StreamState:
        return StreamState.PENDING if stream in self._pending else self.server.state_of(stream)

    def greet(self, instance_id: str, key: bytes, version: int) -> None:
        """Sends HELLO to the ingress with that key."""
        self.version = version
        spoken = versions.SPOKEN
        greeting = Greeting(spoken.oldest, instance_id, key, newest=spoken.newest)
        self.connection.send(FrameKind.HELLO, 0, _encode(greeting))
        self.heartbeat.is_greeted = True

    def open(self, envelope: Envelope) -> None:
        """Opens the stream and answers on it. Raises Unavailable if the connection has just closed.

        Does nothing if the stream is open: a request plane that lost the reply asks a second time.
        """
        stream = envelope.stream
        if not self.connection.is_open:
            raise Unavailable("The connection to the ingress has just closed.")
        if self.state_of(stream) is not StreamState.CLOSED:
            return
        self.connection.send(FrameKind.OPEN, stream, envelope.token)
        if envelope.request:
            self.server.start(stream, envelope.request)
        else:
            loop = asyncio.get_running_loop()
            self._pending[stream] = loop.call_later(REQUEST_SECONDS, self._expire, stream)

    def on_connection(self, frame: Frame) -> None:
        """Acts on a frame on stream 0. Raises WireError."""
        if frame.kind == FrameKind.PING:
            self.server.pong()
        elif frame.kind == FrameKind.ERROR:
            self.refusal = reason_of(frame.body)
            is_greeted = self.confirmed.done()
            reason = WireError("The ingress gave up the connection.") if is_greeted else None
            self.connection.abort(reason)
            return
        if not self.confirmed.done():
            self.confirmed.set_result(True)

    def on_stream(self, frame: Frame) -> None:
        """Acts on a frame of a stream. Raises WireError."""
        stream, before = frame.stream, self.state_of(frame.stream)
        after = stream_after(self.role, self.state, before, frame)
        if after is before:
            return  # late, or of a later release
        self._forget(stream)
        if after is StreamState.OPEN:
            self.server.start(stream, frame.body)
        else:
            self.server.cancel(stream)

    def on_broken(self, error: WireError) -> None:
        """A frame broke the rules: drops it, and logs the first one."""
        if not self._has_complained:
            self._has_complained = True
            log.warning("Dropped a frame from ingress %s. %s", self.connection.peer, error)

    def _forget(self, stream: int) -> None:
        timer = self._pending.pop(stream, None)
        if timer is not None:
            timer.cancel()

    def _expire(self, stream: int) -> None:
        del self._pending[stream]
        error = WireError(f"The request of stream {stream} did not arrive.")
        self.connection.send(FrameKind.ERROR, stream, encode_error(error))

    def _on_frames(self, frames: list[Frame]) -> None:
        for frame in frames:
            try:
                if frame.stream:
                    self.on_stream(frame)
                else:
                    self.state = connection_after(self.role, self.state, frame)
                    self.on_connection(frame)
            except WireError as error:
                self.on_broken(error)

    def _on_closed(self, error: Exception | None) -> None:
        self.heartbeat.stop()
        self.state = ConnectionState.CLOSED
        if isinstance(error, WireError):
            peer = self.connection.peer
            log.warning("Closed the connection to ingress %s. %s", peer, error)
        for stream in list(self._pending):
            self._forget(stream)
        self.server.cancel_all()
        if not self.confirmed.done():
            self.confirmed.set_result(False)
        self._on_lost(self)
