"""Which frames may come when. One table for a connection, one for a stream; sans I/O.

The asking side (the runner, the ingress) numbers the streams. The answering side (the engine host,
the worker) says HELLO first, then answers. What the asking side may get:

    connection  GREETING  --HELLO-->      OPEN       requests may be sent
                GREETING  --ERROR-->      CLOSED     it could not start; the body says why
                OPEN      --GOAWAY-->     DRAINING   open streams go on, no further requests
                OPEN, DRAINING --PING, PONG--> as it was
                any       --ERROR, end of file, a broken rule-->  CLOSED

    stream      PROMISED  --OPEN-->   WAITING    a worker proves that it was asked (between hosts)
                PROMISED  --ERROR-->  ENDED      it refuses
                WAITING   --DATA-->   STREAMING  first output
                WAITING, STREAMING  --END-->     ENDED
                WAITING, STREAMING  --ERROR-->   ENDED
                WAITING, STREAMING  --GOAWAY-->  ENDED      handed back: ask another for the rest

What the answering side may get, once the peer is greeted (by its own HELLO where the asking side
has dialled, else by having been dialled):

    connection  GREETING  --HELLO-->  OPEN
                OPEN      --PING, PONG-->  OPEN
    stream      OPEN (asked to answer; the body is an Envelope), REQUEST, CANCEL,
                ERROR (the OPEN that we sent was not accepted)

A frame for a stream that is not open is late, not wrong: the stream was cancelled, and what was
under way to us is dropped. A frame that the connection's state does not admit breaks the protocol.
"""

from enum import Enum, auto

from dynemo.errors import WireError
from dynemo.wire.frames import Frame, FrameKind


class ConnectionState(Enum):
    GREETING = auto()
    OPEN = auto()
    DRAINING = auto()
    CLOSED = auto()


class StreamState(Enum):
    PROMISED = auto()
    WAITING = auto()
    STREAMING = auto()
    ENDED = auto()


_ON_CONNECTION = {
    (ConnectionState.GREETING, FrameKind.HELLO): ConnectionState.OPEN,
    (ConnectionState.GREETING, FrameKind.ERROR): ConnectionState.CLOSED,
    (ConnectionState.OPEN, FrameKind.PING): ConnectionState.OPEN,
    (ConnectionState.OPEN, FrameKind.PONG): ConnectionState.OPEN,
    (ConnectionState.OPEN, FrameKind.GOAWAY): ConnectionState.DRAINING,
    (ConnectionState.OPEN, FrameKind.ERROR): ConnectionState.CLOSED,
    (ConnectionState.DRAINING, FrameKind.PING): ConnectionState.DRAINING,
    (ConnectionState.DRAINING, FrameKind.PONG): ConnectionState.DRAINING,
    (ConnectionState.DRAINING, FrameKind.ERROR): ConnectionState.CLOSED,
}

# Kinds as they are read are plain numbers, which look up an IntEnum's key as well as the enum does.
_ON_STREAM: dict[int, StreamState] = {
    FrameKind.OPEN: StreamState.WAITING,
    FrameKind.DATA: StreamState.STREAMING,
    FrameKind.END: StreamState.ENDED,
    FrameKind.ERROR: StreamState.ENDED,
    FrameKind.GOAWAY: StreamState.ENDED,
}
_CARRIES_STREAMS = (ConnectionState.OPEN, ConnectionState.DRAINING)

_TO_ANSWERING = {
    (ConnectionState.GREETING, FrameKind.HELLO): ConnectionState.OPEN,
    (ConnectionState.OPEN, FrameKind.PING): ConnectionState.OPEN,
    (ConnectionState.OPEN, FrameKind.PONG): ConnectionState.OPEN,
}
_ASKED: frozenset[int] = frozenset(
    {FrameKind.OPEN, FrameKind.REQUEST, FrameKind.CANCEL, FrameKind.ERROR}
)


def after(state: ConnectionState, frame: Frame) -> ConnectionState:
    """The connection's state after a frame on stream 0. Raises WireError where there is none."""
    try:
        return _ON_CONNECTION[state, FrameKind(frame.kind)]
    except KeyError:
        raise _unexpected(state, frame) from None


def stream_after(connection: ConnectionState, frame: Frame) -> StreamState:
    """The state of an open stream after one of its frames. Raises WireError if there is none."""
    after_kind = _ON_STREAM.get(frame.kind)
    if after_kind is None or connection not in _CARRIES_STREAMS:
        raise _unexpected(connection, frame)
    return after_kind


def answering_after(state: ConnectionState, frame: Frame) -> ConnectionState:
    """The connection's state after any frame that the answering side gets. Raises WireError."""
    if frame.stream and state is ConnectionState.OPEN and frame.kind in _ASKED:
        return state
    try:
        if not frame.stream:
            return _TO_ANSWERING[state, FrameKind(frame.kind)]
    except KeyError:
        pass
    raise _unexpected(state, frame)


def _unexpected(state: ConnectionState, frame: Frame) -> WireError:
    return WireError(
        f"a {FrameKind(frame.kind).name} frame on stream {frame.stream} "
        f"while the connection is {state.name.lower()}"
    )
