from itertools import product

import pytest

from dynemo.errors import WireError
from dynemo.wire.frames import Frame, FrameKind
from dynemo.wire.state import ConnectionState, Role, StreamState, connection_after, stream_after

HELLO, OPEN, REQUEST, DATA, END, ERROR, CANCEL, PING, PONG, GOAWAY = FrameKind
PENDING, STREAM_OPEN, CLOSED = StreamState

#: The frames that each role may read in each state of a stream, and the next states.
ALLOWED = {
    (Role.CLIENT, PENDING): {OPEN: STREAM_OPEN, ERROR: CLOSED},
    (Role.CLIENT, STREAM_OPEN): {DATA: STREAM_OPEN, END: CLOSED, ERROR: CLOSED, GOAWAY: CLOSED},
    (Role.CLIENT, CLOSED): dict.fromkeys((OPEN, DATA, END, ERROR, GOAWAY), CLOSED),
    (Role.HOST, PENDING): {},
    (Role.HOST, STREAM_OPEN): {CANCEL: CLOSED},
    (Role.HOST, CLOSED): {REQUEST: STREAM_OPEN, CANCEL: CLOSED},
    (Role.WORKER, PENDING): {REQUEST: STREAM_OPEN, CANCEL: CLOSED, ERROR: CLOSED},
    (Role.WORKER, STREAM_OPEN): {CANCEL: CLOSED, ERROR: CLOSED},
    (Role.WORKER, CLOSED): dict.fromkeys((REQUEST, CANCEL, ERROR), CLOSED),
    (Role.DIALED_WORKER, PENDING): {REQUEST: STREAM_OPEN, CANCEL: CLOSED, ERROR: CLOSED},
    (Role.DIALED_WORKER, STREAM_OPEN): {CANCEL: CLOSED, ERROR: CLOSED},
    (Role.DIALED_WORKER, CLOSED): dict.fromkeys((OPEN, REQUEST, CANCEL, ERROR), CLOSED),
}


def _frame(kind: int, stream: int = 0) -> Frame:
    return Frame(kind, stream, b"")


@pytest.mark.parametrize(("role", "state", "kind"), list(product(Role, StreamState, FrameKind)))
def test_a_stream_takes_what_its_own_state_allows(
    role: Role, state: StreamState, kind: FrameKind
) -> None:
    allowed = ALLOWED[role, state]
    frame = _frame(kind, 7)
    if kind in allowed:
        assert stream_after(role, ConnectionState.OPEN, state, frame) is allowed[kind]
        return
    with pytest.raises(WireError, match=f"kind {kind.name} on stream 7 .* stream was {state.name}"):
        stream_after(role, ConnectionState.OPEN, state, frame)


@pytest.mark.parametrize("state", [ConnectionState.GREETING, ConnectionState.CLOSED])
def test_streams_need_an_open_connection(state: ConnectionState) -> None:
    for role, (stream, kinds) in product(Role, [(s, k) for (_, s), k in ALLOWED.items()]):
        for kind in kinds:
            with pytest.raises(WireError, match=f"the connection was {state.name}"):
                stream_after(role, state, stream, _frame(kind, 7))


def test_a_connection_greets_serves_and_drains() -> None:
    state = connection_after(Role.CLIENT, ConnectionState.GREETING, _frame(HELLO))
    assert state is ConnectionState.OPEN
    assert connection_after(Role.CLIENT, state, _frame(PONG)) is ConnectionState.OPEN
    state = connection_after(Role.CLIENT, state, _frame(GOAWAY))
    assert state is ConnectionState.DRAINING
    assert stream_after(Role.CLIENT, state, STREAM_OPEN, _frame(END, 1)) is CLOSED
    assert connection_after(Role.CLIENT, state, _frame(ERROR)) is ConnectionState.CLOSED


@pytest.mark.parametrize(
    ("role", "state", "kind"),
    [
        (Role.CLIENT, ConnectionState.GREETING, PONG),
        (Role.CLIENT, ConnectionState.OPEN, HELLO),
        (Role.CLIENT, ConnectionState.OPEN, REQUEST),
        (Role.CLIENT, ConnectionState.DRAINING, GOAWAY),
        (Role.CLIENT, ConnectionState.CLOSED, PONG),
        (Role.HOST, ConnectionState.OPEN, HELLO),
        (Role.WORKER, ConnectionState.OPEN, HELLO),
        (Role.WORKER, ConnectionState.OPEN, GOAWAY),
        (Role.DIALED_WORKER, ConnectionState.GREETING, PING),
        (Role.DIALED_WORKER, ConnectionState.GREETING, ERROR),
        (Role.DIALED_WORKER, ConnectionState.OPEN, HELLO),
    ],
)
def test_a_connection_takes_what_its_state_allows(
    role: Role, state: ConnectionState, kind: FrameKind
) -> None:
    with pytest.raises(WireError, match=f"kind {kind.name} on stream 0 .* was {state.name}"):
        connection_after(role, state, _frame(kind))


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("kind", [0, 11, 255])
def test_a_kind_of_a_later_release_changes_no_state(role: Role, kind: int) -> None:
    for state in (ConnectionState.OPEN, ConnectionState.DRAINING):
        assert connection_after(role, state, _frame(kind)) is state
        for stream in StreamState:
            assert stream_after(role, state, stream, _frame(kind, 7)) is stream
    for state in (ConnectionState.GREETING, ConnectionState.CLOSED):
        with pytest.raises(WireError, match=f"kind {kind} "):
            connection_after(role, state, _frame(kind))
        with pytest.raises(WireError, match=f"kind {kind} "):
            stream_after(role, state, CLOSED, _frame(kind, 7))
