import pytest

from dynemo.errors import WireError
from dynemo.wire.frames import Frame, Kind
from dynemo.wire.state import Connection, Stream, after, answering_after, stream_after


def _frame(kind: Kind, stream: int = 0) -> Frame:
    return Frame(kind, stream, b"")


def test_a_connection_greets_serves_and_drains() -> None:
    state = after(Connection.GREETING, _frame(Kind.HELLO))
    assert state is Connection.OPEN
    assert after(state, _frame(Kind.PONG)) is Connection.OPEN
    state = after(state, _frame(Kind.GOAWAY))
    assert state is Connection.DRAINING
    assert stream_after(state, _frame(Kind.END, 1)) is Stream.ENDED


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (Connection.GREETING, Kind.PONG),
        (Connection.OPEN, Kind.HELLO),
        (Connection.OPEN, Kind.REQUEST),
        (Connection.DRAINING, Kind.GOAWAY),
        (Connection.CLOSED, Kind.PONG),
    ],
)
def test_what_the_table_does_not_have_breaks_the_protocol(state: Connection, kind: Kind) -> None:
    with pytest.raises(WireError, match=f"{kind.name} frame"):
        after(state, _frame(kind))


@pytest.mark.parametrize("kind", [Kind.HELLO, Kind.REQUEST, Kind.CANCEL, Kind.PONG])
def test_a_stream_takes_only_answers(kind: Kind) -> None:
    with pytest.raises(WireError):
        stream_after(Connection.OPEN, _frame(kind, 7))


def test_a_stream_has_nothing_to_say_before_the_greeting() -> None:
    with pytest.raises(WireError):
        stream_after(Connection.GREETING, _frame(Kind.DATA, 7))


def test_the_answering_side_takes_requests_once_it_is_greeted() -> None:
    assert answering_after(Connection.GREETING, _frame(Kind.HELLO)) is Connection.OPEN
    for kind in (Kind.OPEN, Kind.REQUEST, Kind.CANCEL, Kind.ERROR):
        assert answering_after(Connection.OPEN, _frame(kind, 7)) is Connection.OPEN
        with pytest.raises(WireError):
            answering_after(Connection.GREETING, _frame(kind, 7))
        with pytest.raises(WireError):
            answering_after(Connection.OPEN, _frame(kind))


@pytest.mark.parametrize("kind", [Kind.HELLO, Kind.DATA, Kind.END, Kind.GOAWAY, Kind.PING])
def test_the_answering_side_takes_no_answers(kind: Kind) -> None:
    with pytest.raises(WireError):
        answering_after(Connection.OPEN, _frame(kind, 7))
