import pytest

from dynemo.errors import WireError
from dynemo.wire.frames import Frame, FrameKind
from dynemo.wire.state import ConnectionState, StreamState, after, answering_after, stream_after


def _frame(kind: FrameKind, stream: int = 0) -> Frame:
    return Frame(kind, stream, b"")


def test_a_connection_greets_serves_and_drains() -> None:
    state = after(ConnectionState.GREETING, _frame(FrameKind.HELLO))
    assert state is ConnectionState.OPEN
    assert after(state, _frame(FrameKind.PONG)) is ConnectionState.OPEN
    state = after(state, _frame(FrameKind.GOAWAY))
    assert state is ConnectionState.DRAINING
    assert stream_after(state, _frame(FrameKind.END, 1)) is StreamState.ENDED


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (ConnectionState.GREETING, FrameKind.PONG),
        (ConnectionState.OPEN, FrameKind.HELLO),
        (ConnectionState.OPEN, FrameKind.REQUEST),
        (ConnectionState.DRAINING, FrameKind.GOAWAY),
        (ConnectionState.CLOSED, FrameKind.PONG),
    ],
)
def test_what_the_table_does_not_have_breaks_the_protocol(
    state: ConnectionState, kind: FrameKind
) -> None:
    with pytest.raises(WireError, match=f"{kind.name} frame"):
        after(state, _frame(kind))


@pytest.mark.parametrize(
    "kind", [FrameKind.HELLO, FrameKind.REQUEST, FrameKind.CANCEL, FrameKind.PONG]
)
def test_a_stream_takes_only_answers(kind: FrameKind) -> None:
    with pytest.raises(WireError):
        stream_after(ConnectionState.OPEN, _frame(kind, 7))


def test_a_stream_has_nothing_to_say_before_the_greeting() -> None:
    with pytest.raises(WireError):
        stream_after(ConnectionState.GREETING, _frame(FrameKind.DATA, 7))


def test_the_answering_side_takes_requests_once_it_is_greeted() -> None:
    assert (
        answering_after(ConnectionState.GREETING, _frame(FrameKind.HELLO)) is ConnectionState.OPEN
    )
    for kind in (FrameKind.OPEN, FrameKind.REQUEST, FrameKind.CANCEL, FrameKind.ERROR):
        assert answering_after(ConnectionState.OPEN, _frame(kind, 7)) is ConnectionState.OPEN
        with pytest.raises(WireError):
            answering_after(ConnectionState.GREETING, _frame(kind, 7))
        with pytest.raises(WireError):
            answering_after(ConnectionState.OPEN, _frame(kind))


@pytest.mark.parametrize(
    "kind", [FrameKind.HELLO, FrameKind.DATA, FrameKind.END, FrameKind.GOAWAY, FrameKind.PING]
)
def test_the_answering_side_takes_no_answers(kind: FrameKind) -> None:
    with pytest.raises(WireError):
        answering_after(ConnectionState.OPEN, _frame(kind, 7))
