"""The frames that each state allows, for a connection and for each stream on it. Sans I/O.

The client (a runner, an ingress) asks and numbers the streams; stream 0 is the connection. The
server (an engine host, a worker) answers. A frame that its table does not list breaks the protocol.

A connection, at the client:

    GREETING  --HELLO-->         OPEN
    GREETING  --ERROR-->         CLOSED    the server could not start, or refuses; the body says why
    OPEN      --GOAWAY-->        DRAINING  open streams go on; send no further requests
    OPEN, DRAINING --PING, PONG-->  as it was
    OPEN, DRAINING --ERROR-->    CLOSED

A connection, at the server. A worker that dials starts in OPEN, since it says HELLO itself:

    GREETING  --HELLO-->         OPEN      only a worker that an ingress dials
    OPEN      --PING, PONG-->    OPEN
    OPEN      --ERROR-->         CLOSED    the ingress refuses; the body says why

A stream, at the client:

    PENDING  asked for; its worker has not opened it yet. An engine host opens none: see OPEN
    OPEN     the answer arrives
    CLOSED   ended, cancelled, or never asked for. No table holds it

    PENDING  --OPEN-->                  OPEN     the worker accepts; the body is the stream's token
    PENDING  --ERROR-->                 CLOSED   the worker refuses
    OPEN     --DATA-->                  OPEN
    OPEN     --END, ERROR, GOAWAY-->    CLOSED   GOAWAY: ask another instance for the rest
    CLOSED   --DATA, END, ERROR, GOAWAY-->  CLOSED   late: sent before the client's CANCEL arrived
    CLOSED   --OPEN-->                  CLOSED   late: the client answers with ERROR

A stream, at the server:

    PENDING  the worker has sent its OPEN, and the request has not arrived yet
    OPEN     the server answers
    CLOSED   ended, cancelled, or never asked for. No table holds it

    CLOSED   --OPEN-->           CLOSED   only a worker that an ingress dials: the body is an
                                          Envelope. The worker sends OPEN to accept, else ERROR
    CLOSED   --REQUEST-->        OPEN     only an engine host; to a worker it comes too late
    PENDING  --REQUEST-->        OPEN
    PENDING, OPEN --CANCEL-->    CLOSED
    PENDING, OPEN --ERROR-->     CLOSED   the ingress does not accept the worker's OPEN
    CLOSED   --CANCEL, ERROR-->  CLOSED   late

A connection in OPEN or DRAINING skips frames of a kind that this release does not know: they leave
every state as it was. Streams exist only on such a connection.
"""

from enum import Enum, auto

from dynemo.errors import WireError
from dynemo.wire.frames import Frame, FrameKind


class Role(Enum):
    """The side that reads the frames."""

    CLIENT = auto()  #: a runner or an ingress
    HOST = auto()  #: an engine host
    WORKER = auto()  #: a worker that has dialled its ingress
    DIALED_WORKER = auto()  #: a worker that an ingress has dialled


class ConnectionState(Enum):
    GREETING = auto()
    OPEN = auto()
    DRAINING = auto()
    CLOSED = auto()


class StreamState(Enum):
    PENDING = auto()
    OPEN = auto()
    CLOSED = auto()


_GREETING, _OPEN, _DRAINING, _CLOSED = ConnectionState
_Connection = dict[ConnectionState, dict[int, ConnectionState]]
_Stream = dict[StreamState, dict[int, StreamState]]

_OPEN_WORKER: dict[int, ConnectionState] = {
    FrameKind.PING: _OPEN,
    FrameKind.PONG: _OPEN,
    FrameKind.ERROR: _CLOSED,
}

# The kinds of a Frame are plain numbers. As keys, the members of an IntEnum equal them.
_CONNECTION: dict[Role, _Connection] = {
    Role.CLIENT: {
        _GREETING: {FrameKind.HELLO: _OPEN, FrameKind.ERROR: _CLOSED},
        _OPEN: {
            FrameKind.PING: _OPEN,
            FrameKind.PONG: _OPEN,
            FrameKind.GOAWAY: _DRAINING,
            FrameKind.ERROR: _CLOSED,
        },
        _DRAINING: {
            FrameKind.PING: _DRAINING,
            FrameKind.PONG: _DRAINING,
            FrameKind.ERROR: _CLOSED,
        },
    },
    Role.HOST: {_OPEN: {FrameKind.PING: _OPEN}},
    Role.WORKER: {_OPEN: _OPEN_WORKER},
    Role.DIALED_WORKER: {_GREETING: {FrameKind.HELLO: _OPEN}, _OPEN: _OPEN_WORKER},
}

_CANCELLED: dict[int, StreamState] = {
    FrameKind.CANCEL: StreamState.CLOSED,
    FrameKind.ERROR: StreamState.CLOSED,
}
_LATE: dict[int, StreamState] = {FrameKind.REQUEST: StreamState.CLOSED, **_CANCELLED}
_WORKER: _Stream = {
    StreamState.PENDING: {FrameKind.REQUEST: StreamState.OPEN, **_CANCELLED},
    StreamState.OPEN: {**_CANCELLED},
}

_STREAM: dict[Role, _Stream] = {
    Role.CLIENT: {
        StreamState.PENDING: {
            FrameKind.OPEN: StreamState.OPEN,
            FrameKind.ERROR: StreamState.CLOSED,
        },
        StreamState.OPEN: {
            FrameKind.DATA: StreamState.OPEN,
            FrameKind.END: StreamState.CLOSED,
            FrameKind.ERROR: StreamState.CLOSED,
            FrameKind.GOAWAY: StreamState.CLOSED,
        },
        StreamState.CLOSED: {
            FrameKind.OPEN: StreamState.CLOSED,
            FrameKind.DATA: StreamState.CLOSED,
            FrameKind.END: StreamState.CLOSED,
            FrameKind.ERROR: StreamState.CLOSED,
            FrameKind.GOAWAY: StreamState.CLOSED,
        },
    },
    Role.HOST: {
        StreamState.OPEN: {FrameKind.CANCEL: StreamState.CLOSED},
        StreamState.CLOSED: {
            FrameKind.REQUEST: StreamState.OPEN,
            FrameKind.CANCEL: StreamState.CLOSED,
        },
    },
    Role.WORKER: {**_WORKER, StreamState.CLOSED: _LATE},
    Role.DIALED_WORKER: {
        **_WORKER,
        StreamState.CLOSED: {FrameKind.OPEN: StreamState.CLOSED, **_LATE},
    },
}

_KNOWN = frozenset(int(kind) for kind in FrameKind)
_CARRIES_STREAMS = (ConnectionState.OPEN, ConnectionState.DRAINING)


def connection_after(role: Role, state: ConnectionState, frame: Frame) -> ConnectionState:
    """The connection's state after a frame on stream 0. Raises WireError."""
    after = _CONNECTION[role].get(state, {}).get(frame.kind)
    if after is not None:
        return after
    if frame.kind not in _KNOWN and state in _CARRIES_STREAMS:
        return state
    raise _unexpected(frame, f"connection was {state.name}")


def stream_after(
    role: Role, connection: ConnectionState, state: StreamState, frame: Frame
) -> StreamState:
    """The state of a stream after one of its frames. Raises WireError."""
    if connection not in _CARRIES_STREAMS:
        raise _unexpected(frame, f"connection was {connection.name}")
    after = _STREAM[role].get(state, {}).get(frame.kind)
    if after is not None:
        return after
    if frame.kind not in _KNOWN:
        return state
    raise _unexpected(frame, f"stream was {state.name}")


def _unexpected(frame: Frame, where: str) -> WireError:
    name = FrameKind(frame.kind).name if frame.kind in _KNOWN else frame.kind
    return WireError(f"A frame of kind {name} on stream {frame.stream} arrived while the {where}.")
