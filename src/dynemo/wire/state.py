"""Which frames may come when. One table for a connection, one for a stream; sans I/O.

Both are seen from the asking side (the runner, the ingress), which numbers the streams; the
answering side (the engine host, the worker) sends HELLO first, then answers.

    connection  GREETING  --HELLO-->   OPEN       requests may be sent
                GREETING  --ERROR-->   CLOSED     it could not start; the body says why
                OPEN      --GOAWAY-->  DRAINING   open streams go on, no further requests
                any       --end of file, a broken rule-->  CLOSED

    stream      WAITING   --DATA-->    STREAMING  first output
                WAITING, STREAMING  --END-->    ENDED
                WAITING, STREAMING  --ERROR-->  ENDED

A frame for a stream that is not open is late, not wrong: the stream was cancelled, and what was
under way to us is dropped. A frame that the connection's state does not admit breaks the protocol.
"""

from enum import Enum, auto

from dynemo.errors import WireError
from dynemo.wire.frames import Frame, Kind


class Connection(Enum):
    GREETING = auto()
    OPEN = auto()
    DRAINING = auto()
    CLOSED = auto()


class Stream(Enum):
    WAITING = auto()
    STREAMING = auto()
    ENDED = auto()


_ON_CONNECTION = {
    (Connection.GREETING, Kind.HELLO): Connection.OPEN,
    (Connection.GREETING, Kind.ERROR): Connection.CLOSED,
    (Connection.OPEN, Kind.PONG): Connection.OPEN,
    (Connection.OPEN, Kind.GOAWAY): Connection.DRAINING,
    (Connection.OPEN, Kind.ERROR): Connection.CLOSED,
    (Connection.DRAINING, Kind.PONG): Connection.DRAINING,
    (Connection.DRAINING, Kind.ERROR): Connection.CLOSED,
}

_ON_STREAM = {
    Kind.DATA: Stream.STREAMING,
    Kind.END: Stream.ENDED,
    Kind.ERROR: Stream.ENDED,
}

_CARRIES_STREAMS = (Connection.OPEN, Connection.DRAINING)


def after(state: Connection, frame: Frame) -> Connection:
    """The connection's state after a frame on stream 0. Raises WireError where there is none."""
    try:
        return _ON_CONNECTION[state, Kind(frame.kind)]
    except KeyError:
        raise _unexpected(state, frame) from None


def stream_after(connection: Connection, frame: Frame) -> Stream:
    """The state of an open stream after one of its frames. Raises WireError if there is none."""
    after_kind = _ON_STREAM.get(Kind(frame.kind))
    if after_kind is None or connection not in _CARRIES_STREAMS:
        raise _unexpected(connection, frame)
    return after_kind


def _unexpected(state: Connection, frame: Frame) -> WireError:
    return WireError(
        f"a {Kind(frame.kind).name} frame on stream {frame.stream} "
        f"while the connection is {state.name.lower()}"
    )
