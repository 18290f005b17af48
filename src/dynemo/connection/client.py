"""The client of a framed connection: many streams on one connection, a buffer for each."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from itertools import count
from time import monotonic

from msgspec import DecodeError, msgpack

from dynemo.connection.buffer import StreamBuffer
from dynemo.connection.framed import FramedConnection
from dynemo.connection.prefill import PART_BYTES, PrefillPace
from dynemo.errors import (
    BodyTooLarge,
    DynemoError,
    EngineLost,
    EngineStalled,
    HandedBack,
    InstanceAway,
    InstanceLost,
    WireError,
)
from dynemo.foreign import msgpack_decoder
from dynemo.messages.answer import Delta
from dynemo.messages.records import Instance, Load
from dynemo.messages.request import Request
from dynemo.messages.wire import EngineLoad, Hello
from dynemo.wire import versions
from dynemo.wire.deltas import decode_final, decode_load, updated_load
from dynemo.wire.failures import decode_error
from dynemo.wire.frames import MAX_BODY, Frame, FrameKind
from dynemo.wire.state import ConnectionState, Role, StreamState, connection_after, stream_after

_DATA = int(FrameKind.DATA)
_encode = msgpack.Encoder().encode
_decode_hello = msgpack_decoder(Hello)
_decode_load = msgpack_decoder(EngineLoad)


class StreamClient:
    """One connection to a server, and the streams that it answers.

    `load` is the last load that the peer sent.
    """

    def __init__(self, peer: str) -> None:
        self.connection = FramedConnection(self._on_frames, self._on_closed)
        self.load = Load()
        self.active_at = 0.0  #: when a stream last got a frame, on the clock of `time.monotonic`
        self.state = ConnectionState.GREETING
        self._peer = peer  # with an article, as the start of a sentence
        self._buffers: dict[int, StreamBuffer] = {}  # of the streams in StreamState.OPEN

    def state_of(self, stream: int) -> StreamState:
        return StreamState.OPEN if stream in self._buffers else StreamState.CLOSED

    def drop(self, stream: int) -> None:
        """Cancels a stream, unless it has ended."""
        if self._buffers.pop(stream, None) is not None:
            self.connection.send(FrameKind.CANCEL, stream)

    def on_connection(self, frame: Frame) -> None:
        """Acts on a frame on stream 0, after `state` has changed. Raises WireError, DecodeError."""
        if frame.kind == FrameKind.PONG:
            self.load = decode_load(frame.body)

    def on_stream_not_open(self, state: StreamState, frame: Frame) -> None:
        """Acts on a frame of a stream that is not open: drops it, since it is late. Raises
        WireError, DecodeError."""

    def on_active(self, streams: Iterable[int]) -> None:  # noqa: ARG002 (subclasses use it)
        """Frames of these streams have arrived in one read."""
        self.active_at = self.connection.heard

    def on_broken(self, frame: Frame, error: WireError) -> None:  # noqa: ARG002 (subclasses use it)
        """A frame broke the rules. Raises `error` to close the connection."""
        raise error

    def failure(self, error: Exception | None) -> EngineLost:
        """Makes the error of a stream whose connection has closed because of `error`."""
        problem = _cause(error)
        return InstanceLost(f"{self._peer} ended before its answer did.{problem}")

    def on_lost(self) -> None:
        """The connection has closed, and every stream on it has failed with EngineLost."""

    def fail(self, stream: int, error: DynemoError) -> None:
        """Ends a stream with an error, after its deltas so far; cancels it at the peer."""
        buffer = self._buffers.get(stream)
        if buffer is not None:
            buffer.fail(error)
            self.drop(stream)

    def _on_frames(self, frames: list[Frame]) -> None:
        """Takes the frames of one read, of which a busy connection has many. The deltas of a stream
        are taken together, before the next other frame of that stream."""
        buffers = self._buffers
        deltas: dict[int, list[bytes]] = {}
        try:
            for frame in frames:
                kind, stream, body = frame
                # Nearly all frames are DATA of an open stream, which stays open: `stream_after`
                # has nothing to add.
                bodies = deltas.get(stream)
                if kind == _DATA:
                    if bodies is not None:
                        bodies.append(body)
                        continue
                    if stream in buffers:
                        deltas[stream] = [body]
                        continue
                elif bodies is not None:
                    self._on_data(stream, deltas.pop(stream))
                self._on_frame(frame)
        finally:
            if deltas:
                self.on_active(deltas)
            for stream, bodies in deltas.items():
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
                self._on_stream(frame)
            else:
                self.state = connection_after(Role.CLIENT, self.state, frame)
                self.on_connection(frame)
        except WireError as error:
            self.on_broken(frame, error)
        except DecodeError as error:
            self.on_broken(frame, _undecodable(error))

    def _on_stream(self, frame: Frame) -> None:
        before = self.state_of(frame.stream)
        after = stream_after(Role.CLIENT, self.state, before, frame)
        if before is not StreamState.OPEN:
            self.on_stream_not_open(before, frame)
            return
        self.on_active((frame.stream,))
        buffer = self._buffers[frame.stream]
        if frame.kind == FrameKind.END:
            delta, load = decode_final(frame.body)
            if load is not None:
                self.load = updated_load(self.load, load)
            buffer.put(delta, len(frame.body))
        elif frame.kind == FrameKind.ERROR:
            buffer.fail(decode_error(frame.body))
        elif frame.kind == FrameKind.GOAWAY:
            buffer.fail(HandedBack(f"{self._peer} handed back the rest of its answer."))
        if after is StreamState.CLOSED:
            self._buffers.pop(frame.stream, None)

    def _on_closed(self, error: Exception | None) -> None:
        for buffer in self._buffers.values():
            buffer.fail(self.failure(error))
        self._buffers.clear()
        self.state = ConnectionState.CLOSED
        self.on_lost()


def _undecodable(error: DecodeError) -> WireError:
    return WireError(f"The body of a frame does not decode: {error}.")


def _cause(error: Exception | None) -> str:
    """Why a connection has closed: a space and a sentence, or nothing."""
    if isinstance(error, WireError):
        return f" {error}"
    return f" Its connection failed: {getattr(error, 'strerror', None) or error}." if error else ""


class HostClient(StreamClient):
    """The runner's connection to its engine host.

    `greeted` resolves to the host's Instance. If the engine cannot start, it raises the reason.
    `on_lost` is called once, after every open stream has failed with EngineLost. `pace` learns from
    the answers.
    """

    def __init__(self, on_lost: Callable[[], None], pace: PrefillPace | None = None) -> None:
        super().__init__("The engine")
        self.progress: int | None = None  #: see `EngineLoad`
        self._pace = pace or PrefillPace()
        self._stalled: EngineStalled | None = None
        self._waiting: dict[int, tuple[int, float]] = {}  # streams without a token: size, start
        self.greeted: asyncio.Future[Instance] = asyncio.get_running_loop().create_future()
        # Retrieves the exception, in case the task that waited has gone.
        self.greeted.add_done_callback(lambda greeted: greeted.cancelled() or greeted.exception())
        self._report_lost = on_lost
        self._numbers = count(1)

    @property
    def is_greeted(self) -> bool:
        done = self.greeted.done() and not self.greeted.cancelled()
        return done and self.greeted.exception() is None

    async def ask(self, request: bytes, buffer: StreamBuffer) -> AsyncGenerator[Delta, None]:
        """Sends an encoded Request. Gives what `buffer` holds each time it is taken."""
        if self.state is not ConnectionState.OPEN:
            raise InstanceAway("The engine takes no requests now.")
        stream, size = next(self._numbers), len(request)
        self._buffers[stream] = buffer
        self._waiting[stream] = size, monotonic()
        try:
            self.connection.send(FrameKind.REQUEST, stream, request)
            del request  # a long prompt's is large, and the answer may take long
            while True:
                delta = await buffer.take()
                yield delta
                if delta.finish is not None:
                    self._pace.learn(stream, delta.finish)
                    return
        finally:
            self._waiting.pop(stream, None)
            self._pace.forget(stream)
            self.drop(stream)

    @property
    def is_busy(self) -> bool:
        """Whether a stream is open."""
        return bool(self._buffers)

    @property
    def expected_prefill(self) -> float:
        """Seconds that the prompts without a token should take. If the engine tells its progress,
        only a part of them counts."""
        size = sum(size for size, _ in self._waiting.values())
        return self._pace.expected(size if self.progress is None else min(size, PART_BYTES))

    def on_active(self, streams: Iterable[int]) -> None:
        super().on_active(streams)
        if self._waiting:
            for stream in self._waiting.keys() & streams:
                size, began = self._waiting.pop(stream)
                self._pace.answered(stream, size, self.active_at - began)

    def give_up(self, error: EngineStalled) -> None:
        """Closes the connection; every open stream fails with this error."""
        self._stalled = error
        self.connection.abort()

    def failure(self, error: Exception | None) -> EngineLost:
        if self._stalled is not None:
            return EngineStalled(str(self._stalled))
        problem = _cause(error)
        return EngineLost(f"The engine ended before its answer did.{problem}")

    def ping(self) -> None:
        """Asks for the load; the answer sets `load`."""
        if self.state is ConnectionState.OPEN:
            self.connection.send(FrameKind.PING, 0)

    def on_connection(self, frame: Frame) -> None:
        if frame.kind == FrameKind.HELLO:
            hello = _decode_hello(frame.body)
            if hello.protocol != versions.SPOKEN.newest:  # both ends are of one release
                raise WireError(f"The engine host speaks protocol {hello.protocol}.")
            self.greeted.set_result(hello.instance)
        elif frame.kind == FrameKind.ERROR and not self.greeted.done():
            self.greeted.set_exception(decode_error(frame.body))
        elif frame.kind == FrameKind.PONG:
            load = _decode_load(frame.body)
            self.load = Load(load.running, load.waiting, load.kv_use)
            self.progress = load.progress
        else:
            super().on_connection(frame)

    def on_lost(self) -> None:
        if not self.greeted.done():
            self.greeted.set_exception(EngineLost("The engine ended before it was ready."))
        self._report_lost()


def encode_request(request: Request) -> bytes:
    """A Request as it travels. Raises BodyTooLarge if no frame can hold it."""
    body = _encode(request)
    if len(body) > MAX_BODY:
        raise BodyTooLarge(
            f"The request has {len(body):,} bytes, but a frame holds at most {MAX_BODY:,}."
        )
    return body
