"""The asking side of a framed connection: many streams on one link, a buffer each."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from itertools import count

from msgspec import DecodeError, msgpack

from dynemo import errors
from dynemo.connection.buffer import StreamBuffer
from dynemo.connection.framed import PROTOCOL, FramedConnection
from dynemo.errors import (
    BodyTooLarge,
    DynemoError,
    EngineLost,
    RequestError,
    Unavailable,
    WireError,
)
from dynemo.messages.answer import Delta
from dynemo.messages.records import Instance, Load
from dynemo.messages.request import Request
from dynemo.messages.wire import Failure, FinalDelta, Hello
from dynemo.wire import state
from dynemo.wire.frames import MAX_BODY, Frame, FrameKind
from dynemo.wire.state import ConnectionState

log = logging.getLogger("dynemo.engine")

_DATA = int(FrameKind.DATA)
_encode = msgpack.Encoder().encode
_decode_ending = msgpack.Decoder(FinalDelta).decode
_decode_failure = msgpack.Decoder(Failure).decode
_decode_hello = msgpack.Decoder(Hello).decode
_decode_load = msgpack.Decoder(Load).decode


class StreamClient:
    """One connection to something that answers, and what comes on it.

    `load` is what the peer last said that it is busy with.
    """

    def __init__(self, peer: str) -> None:
        self.link = FramedConnection(self._on_frames, self._on_closed)
        self.load = Load()
        self.state = ConnectionState.GREETING
        self._peer = peer  # with an article, as the start of a sentence
        self._buffers: dict[int, StreamBuffer] = {}

    def drop(self, stream: int) -> None:
        """Cancels a stream, unless it has ended."""
        if self._buffers.pop(stream, None) is not None:
            self.link.send(FrameKind.CANCEL, stream)

    def on_connection(self, frame: Frame) -> None:
        """Acts on a frame on stream 0, after `state` has gone on. Raises WireError, DecodeError."""
        if frame.kind == FrameKind.PONG:
            self.load = _decode_load(frame.body)

    def on_broken(self, frame: Frame, error: WireError) -> None:  # noqa: ARG002 (others look)
        """A frame that breaks the rules. Raises `error` to close the connection."""
        raise error

    def on_lost(self) -> None:
        """The connection has closed, and every stream on it has failed with EngineLost."""

    def on_stream(self, frame: Frame) -> None:
        """Acts on a frame of a stream. Raises WireError, DecodeError."""
        after = state.stream_after(self.state, frame)
        buffer = self._buffers.get(frame.stream)
        if buffer is None:
            return  # cancelled; this was under way
        if frame.kind == FrameKind.END:
            ending = _decode_ending(frame.body)
            self.load = ending.load or self.load
            buffer.put(ending, len(frame.body))
        elif frame.kind == FrameKind.ERROR:
            buffer.fail(raised(frame.body))
        elif frame.kind == FrameKind.GOAWAY:
            buffer.fail(EngineLost(f"{self._peer} handed back the rest of its answer."))
        if after is state.StreamState.ENDED:
            self._buffers.pop(frame.stream, None)

    def fail(self, stream: int, error: DynemoError) -> None:
        """Ends a stream after what has come, here and at the peer."""
        buffer = self._buffers.get(stream)
        if buffer is not None:
            buffer.fail(error)
            self.drop(stream)

    def _on_frames(self, frames: list[Frame]) -> None:
        """One read's frames. The deltas of a stream are taken together, before what follows them
        on it: a busy connection brings many at once."""
        buffers = self._buffers
        come: dict[int, list[bytes]] = {}
        try:
            for frame in frames:
                kind, stream, body = frame
                # Nearly all frames are this. A stream is in the table only while the connection
                # carries streams, so that its state has nothing to add.
                bodies = come.get(stream)
                if kind == _DATA:
                    if bodies is not None:
                        bodies.append(body)
                        continue
                    if stream in buffers:
                        come[stream] = [body]
                        continue
                elif bodies is not None:
                    self._on_data(stream, come.pop(stream))
                self._on_frame(frame)
        finally:
            for stream, bodies in come.items():
                self._on_data(stream, bodies)

    def _on_data(self, stream: int, bodies: list[bytes]) -> None:
        try:
            if not self._buffers[stream].data(bodies):
                self.drop(stream)
        except DecodeError as error:
            self.on_broken(Frame(_DATA, stream, b""), _undecodable(error))

    def _on_frame(self, frame: Frame) -> None:
        try:
            if frame.stream:
                self.on_stream(frame)
            else:
                self.state = state.after(self.state, frame)
                self.on_connection(frame)
        except WireError as error:
            self.on_broken(frame, error)
        except DecodeError as error:
            self.on_broken(frame, _undecodable(error))

    def _on_closed(self, reason: Exception | None) -> None:
        self.state = ConnectionState.CLOSED
        because = f": {reason}" if reason else ""
        for buffer in self._buffers.values():
            buffer.fail(EngineLost(f"{self._peer} ended before its answer did{because}."))
        self._buffers.clear()
        self.on_lost()


def _undecodable(error: DecodeError) -> WireError:
    return WireError(f"a frame's body does not decode: {error}")


class HostClient(StreamClient):
    """The runner's connection to its engine host.

    `greeted` resolves to its Instance, or raises what kept it from starting. `on_lost` is called
    once, after every open stream has been failed with EngineLost.
    """

    def __init__(self, on_lost: Callable[[], None]) -> None:
        super().__init__("The engine")
        self.greeted: asyncio.Future[Instance] = asyncio.get_running_loop().create_future()
        # Seen, also when whoever waited for it has gone.
        self.greeted.add_done_callback(lambda greeted: greeted.cancelled() or greeted.exception())
        self._tell_lost = on_lost
        self._numbers = count(1)

    @property
    def is_greeted(self) -> bool:
        done = self.greeted.done() and not self.greeted.cancelled()
        return done and self.greeted.exception() is None

    async def ask(self, request: bytes, buffer: StreamBuffer) -> AsyncGenerator[Delta, None]:
        """Asks for an encoded Request. Gives what is in `buffer` when it is taken."""
        if self.state is not ConnectionState.OPEN:
            raise Unavailable("The engine takes no requests now.")
        stream = next(self._numbers)
        self._buffers[stream] = buffer
        try:
            self.link.send(FrameKind.REQUEST, stream, request)
            del request  # a long prompt's, and the answer may take long
            while True:
                delta = await buffer.take()
                yield delta
                if delta.finish is not None:
                    return
        finally:
            self.drop(stream)

    def ping(self) -> None:
        """Asks for the load; `load` has it when the answer has come."""
        if self.state is ConnectionState.OPEN:
            self.link.send(FrameKind.PING, 0)

    def on_connection(self, frame: Frame) -> None:
        if frame.kind == FrameKind.HELLO:
            hello = _decode_hello(frame.body)
            if hello.protocol != PROTOCOL:
                raise WireError(f"the peer speaks protocol {hello.protocol}, not {PROTOCOL}")
            self.greeted.set_result(hello.instance)
        elif frame.kind == FrameKind.ERROR and not self.greeted.done():
            self.greeted.set_exception(raised(frame.body))
        else:
            super().on_connection(frame)

    def on_lost(self) -> None:
        if not self.greeted.done():
            self.greeted.set_exception(EngineLost("The engine ended before it was ready."))
        self._tell_lost()


def encoded(request: Request) -> bytes:
    """As it travels. Raises BodyTooLarge for what no frame holds."""
    body = _encode(request)
    if len(body) > MAX_BODY:
        raise BodyTooLarge(f"The request is {len(body)} bytes long; at most {MAX_BODY} can go.")
    return body


def raised(body: bytes) -> DynemoError:
    """The error that the other process raised, as its own class where it is one of ours."""
    failure = _decode_failure(body)
    if failure.trace:
        log.error("%s", failure.trace)
    kind = getattr(errors, failure.error, None)
    if not isinstance(kind, type) or not issubclass(kind, DynemoError):
        kind = errors.EngineError
    if issubclass(kind, RequestError):
        return kind(failure.message, param=failure.param)
    return kind(failure.message)
