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
from dynemo.wire.frames import Frame, Kind


class Connection(Enum):
    GREETING = auto()
    OPEN = auto()
    DRAINING = auto()
    CLOSED = auto()


class Stream(Enum):
    PROMISED = auto()
    WAITING = auto()
    STREAMING = auto()
    ENDED = auto()


_ON_CONNECTION = {
    (Connection.GREETING, Kind.HELLO): Connection.OPEN,
    (Connection.GREETING, Kind.ERROR): Connection.CLOSED,
    (Connection.OPEN, Kind.PING): Connection.OPEN,
    (Connection.OPEN, Kind.PONG): Connection.OPEN,
    (Connection.OPEN, Kind.GOAWAY): Connection.DRAINING,
    (Connection.OPEN, Kind.ERROR): Connection.CLOSED,
    (Connection.DRAINING, Kind.PING): Connection.DRAINING,
    (Connection.DRAINING, Kind.PONG): Connection.DRAINING,
    (Connection.DRAINING, Kind.ERROR): Connection.CLOSED,
}

# Kinds as they are read are plain numbers, which look up an IntEnum's key as well as the enum does.
_ON_STREAM: dict[int, Stream] = {
    Kind.OPEN: Stream.WAITING,
    Kind.DATA: Stream.STREAMING,
    Kind.END: Stream.ENDED,
    Kind.ERROR: Stream.ENDED,
    Kind.GOAWAY: Stream.ENDED,
}
_CARRIES_STREAMS = (Connection.OPEN, Connection.DRAINING)

_TO_ANSWERING = {
    (Connection.GREETING, Kind.HELLO): Connection.OPEN,
    (Connection.OPEN, Kind.PING): Connection.OPEN,
    (Connection.OPEN, Kind.PONG): Connection.OPEN,
}
_ASKED: frozenset[int] = frozenset({Kind.OPEN, Kind.REQUEST, Kind.CANCEL, Kind.ERROR})


def after(state: Connection, frame: Frame) -> Connection:
    """The connection's state after a frame on stream 0. Raises WireError where there is none."""
    try:
        return _ON_CONNECTION[state, Kind(frame.kind)]
    except KeyError:
        raise _unexpected(state, frame) from None


def stream_after(connection: Connection, frame: Frame) -> Stream:
    """The state of an open stream after one of its frames. Raises WireError if there is none."""
    after_kind = _ON_STREAM.get(frame.kind)
    if after_kind is None or connection not in _CARRIES_STREAMS:
        raise _unexpected(connection, frame)
    return after_kind


def answering_after(state: Connection, frame: Frame) -> Connection:
    """The connection's state after any frame that the answering side gets. Raises WireError."""
    if frame.stream and state is Connection.OPEN and frame.kind in _ASKED:
        return state
    try:
        if not frame.stream:
            return _TO_ANSWERING[state, Kind(frame.kind)]
    except KeyError:
        pass
    raise _unexpected(state, frame)


def _unexpected(state: Connection, frame: Frame) -> WireError:
    return WireError(
        f"a {Kind(frame.kind).name} frame on stream {frame.stream} "
        f"while the connection is {state.name.lower()}"
    )
