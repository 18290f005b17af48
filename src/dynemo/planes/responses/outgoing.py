"""The worker's side of a connection to one ingress: its answers go out here."""

import asyncio
import logging
from collections.abc import Callable

from msgspec import msgpack

from dynemo.connection.framed import PROTOCOL, FramedConnection
from dynemo.connection.heartbeat import Beat, Heartbeat
from dynemo.connection.server import StreamServer, failure
from dynemo.errors import Unavailable, WireError
from dynemo.messages.wire import Envelope, Greeting
from dynemo.wire import state
from dynemo.wire.frames import Frame, FrameKind

log = logging.getLogger("dynemo.responses")

#: Seconds from OPEN to the REQUEST of a stream whose envelope did not carry it.
REQUEST_SECONDS = 10.0

_encode = msgpack.Encoder().encode


class IngressConnection:
    """One that this worker dialled. `confirmed` is whether the peer took our HELLO."""

    def __init__(
        self,
        make_answers: Callable[[FramedConnection], StreamServer],
        beat: Beat,
        on_lost: Callable[["IngressConnection"], None],
        *,
        is_dialled_here: bool = True,
    ) -> None:
        self.link = FramedConnection(self._on_frames, self._on_closed)
        self.answers = make_answers(self.link)
        self.confirmed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.state = (
            state.ConnectionState.OPEN if is_dialled_here else state.ConnectionState.GREETING
        )
        self._on_lost = on_lost
        self._expected: dict[int, asyncio.TimerHandle] = {}
        self._has_complained = False
        self.heartbeat = Heartbeat(self.link, beat, self.is_idle if is_dialled_here else None)
        self.link.on_connected = self.heartbeat.start

    def is_idle(self) -> bool:
        return not self.answers and not self._expected

    def greet(self, instance_id: str, key: bytes) -> None:
        self.link.send(FrameKind.HELLO, 0, _encode(Greeting(PROTOCOL, instance_id, key)))
        self.heartbeat.is_greeted = True

    def open(self, envelope: Envelope) -> None:
        """Opens the stream, and answers on it: once, if it is asked again while it runs, as a
        request plane does that has lost the reply. Raises Unavailable where the connection has just
        closed."""
        stream = envelope.stream
        if not self.link.is_open:
            raise Unavailable("The connection to the ingress has just closed.")
        if stream in self.answers or stream in self._expected:
            return
        self.link.send(FrameKind.OPEN, stream, envelope.token)
        if envelope.request:
            self.answers.start(stream, envelope.request)
        else:
            loop = asyncio.get_running_loop()
            self._expected[stream] = loop.call_later(REQUEST_SECONDS, self._give_up, stream)

    def on_connection(self, frame: Frame) -> None:
        """Acts on a frame on stream 0. Raises WireError, DecodeError."""
        if frame.kind == FrameKind.PING:
            self.answers.pong()
        if not self.confirmed.done():
            self.confirmed.set_result(True)

    def on_stream(self, frame: Frame) -> None:
        """Acts on a frame of a stream. Raises WireError, DecodeError."""
        if frame.kind == FrameKind.REQUEST:
            if self._forget(frame.stream):
                self.answers.start(frame.stream, frame.body)
        elif frame.kind in (FrameKind.CANCEL, FrameKind.ERROR):
            self._forget(frame.stream)
            self.answers.cancel(frame.stream)
        else:
            raise WireError(f"stream {frame.stream} was asked for where the worker has dialled")

    def on_broken(self, error: WireError) -> None:
        """A frame that breaks the rules: dropped, and said once."""
        if not self._has_complained:
            self._has_complained = True
            log.warning("%s: %s; dropped", self.link.peer, error)

    def _forget(self, stream: int) -> bool:
        timer = self._expected.pop(stream, None)
        if timer is not None:
            timer.cancel()
        return timer is not None

    def _give_up(self, stream: int) -> None:
        del self._expected[stream]
        error = WireError(f"The request of stream {stream} did not come.")
        self.link.send(FrameKind.ERROR, stream, failure(error))

    def _on_frames(self, frames: list[Frame]) -> None:
        for frame in frames:
            try:
                self.state = state.answering_after(self.state, frame)
                if frame.stream:
                    self.on_stream(frame)
                else:
                    self.on_connection(frame)
            except WireError as error:
                self.on_broken(error)

    def _on_closed(self, reason: Exception | None) -> None:
        self.heartbeat.stop()
        self.state = state.ConnectionState.CLOSED
        if isinstance(reason, WireError):
            log.warning("%s: %s; the connection is closed", self.link.peer, reason)
        for stream in list(self._expected):
            self._forget(stream)
        self.answers.cancel_all()
        if not self.confirmed.done():
            self.confirmed.set_result(False)
        self._on_lost(self)
