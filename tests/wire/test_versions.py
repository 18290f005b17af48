import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack

from dynemo.errors import WireError
from dynemo.messages.wire import Envelope, Greeting
from dynemo.wire.versions import SPOKEN, VersionRange, negotiate, spoken_by
from support import protocol_1

WORKER = "12345678" * 4
ranges = st.builds(
    lambda oldest, length: VersionRange(oldest, oldest + length),
    st.integers(1, 9),
    st.integers(0, 4),
)


@given(ranges, ranges)
def test_both_sides_speak_the_highest_version_that_both_have(
    worker: VersionRange, ingress: VersionRange
) -> None:
    spoken = [set(range(one.oldest, one.newest + 1)) for one in (worker, ingress)]
    both = spoken[0] & spoken[1]
    if both:
        assert negotiate(WORKER, worker, ingress) == max(both)
        assert negotiate(WORKER, ingress, worker) == max(both)
        return
    with pytest.raises(WireError, match=f"protocol {worker}; .* protocol {ingress}"):
        negotiate(WORKER, worker, ingress)


@pytest.mark.parametrize(
    ("worker", "ingress", "text"),
    [
        (
            VersionRange(3, 4),
            VersionRange(1, 1),
            "Worker 12345678 speaks protocol 3 to 4; the ingress speaks protocol 1. "
            "Upgrade the ingress.",
        ),
        (
            VersionRange(1, 1),
            VersionRange(3, 4),
            "Worker 12345678 speaks protocol 1; the ingress speaks protocol 3 to 4. "
            "Upgrade the worker.",
        ),
    ],
)
def test_a_mismatch_names_both_ranges_and_what_to_upgrade(
    worker: VersionRange, ingress: VersionRange, text: str
) -> None:
    with pytest.raises(WireError) as caught:
        negotiate(WORKER, worker, ingress)
    assert str(caught.value) == text


def test_a_peer_that_names_no_range_speaks_one_version() -> None:
    old = msgpack.encode(protocol_1.Greeting(1, WORKER, bytes(32)))
    assert spoken_by(msgpack.decode(old, type=Greeting)) == (1, 1)
    future = msgpack.encode(protocol_1.Greeting(2, WORKER, bytes(32)))
    assert spoken_by(msgpack.decode(future, type=Greeting)) == (2, 2)
    envelope = protocol_1.Envelope(key=b"", addresses=[], stream=1, token=b"")
    read = msgpack.decode(msgpack.encode(envelope), type=Envelope)
    assert spoken_by(read) == (1, 1)


def test_protocol_1_accepts_the_greeting_of_this_release() -> None:
    ours = Greeting(SPOKEN.oldest, WORKER, bytes(32), bytes(32), SPOKEN.newest)
    body = msgpack.encode(ours)
    assert len(body) <= protocol_1.MAX_UNGREETED
    read = msgpack.decode(body, type=protocol_1.Greeting)
    protocol_1.check_greeting(read, key=bytes(32), instance=WORKER)
