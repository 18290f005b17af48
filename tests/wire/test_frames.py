import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynemo.errors import WireError
from dynemo.wire.frames import HEADER, MAX_BODY, Frame, FrameKind, FrameReader, encode

frames = st.lists(
    st.builds(Frame, st.sampled_from(FrameKind), st.integers(0, 2**64 - 1), st.binary(max_size=300))
)


@given(frames, st.lists(st.integers(1, 50)))
def test_frames_survive_any_cut(sent: list[Frame], cuts: list[int]) -> None:
    data = b"".join(encode(FrameKind(f.kind), f.stream, f.body) for f in sent)
    reader = FrameReader()
    got: list[Frame] = []
    for size in cuts:
        got += reader.feed(data[:size])
        data = data[size:]
    got += reader.feed(data)
    assert got == sent


def test_a_body_at_the_cap_passes_and_one_over_it_does_not() -> None:
    body = bytes(MAX_BODY)
    assert FrameReader().feed(encode(FrameKind.DATA, 1, body)) == [Frame(FrameKind.DATA, 1, body)]
    with pytest.raises(WireError, match="over the cap"):
        encode(FrameKind.DATA, 1, body + b"x")


def test_an_announced_length_over_the_cap_is_refused_before_its_body_comes() -> None:
    with pytest.raises(WireError, match="announces 16777217 bytes"):
        FrameReader().feed(HEADER.pack(MAX_BODY + 1, FrameKind.DATA, 1))


def test_a_cap_may_be_lower_until_the_peer_has_greeted() -> None:
    reader = FrameReader(max_body=10)
    with pytest.raises(WireError, match="over the cap of 10"):
        reader.feed(encode(FrameKind.HELLO, 0, bytes(11)))
    reader = FrameReader(max_body=10)
    reader.max_body = 11
    assert reader.feed(encode(FrameKind.HELLO, 0, bytes(11)))


@pytest.mark.parametrize("kind", [0, 11, 255])
def test_a_kind_of_a_later_release_does_not_disturb_the_next_frame(kind: int) -> None:
    data = HEADER.pack(3, kind, 1) + b"new" + encode(FrameKind.DATA, 1, b"old")
    assert FrameReader().feed(data) == [Frame(kind, 1, b"new"), Frame(FrameKind.DATA, 1, b"old")]
