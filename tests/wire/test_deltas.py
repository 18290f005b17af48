import pytest
from msgspec import DecodeError, msgpack, structs

from dynemo.messages.answer import Delta, Finish, Scores
from dynemo.messages.records import Load
from dynemo.messages.wire import FinalDelta
from dynemo.wire.deltas import decode_deltas, decode_final, encode_final
from support import protocol_1

LAST = Delta([7], ["x"], Finish("length", 3, 4, 1, 2, "stop"), 1, b"1234")
LOAD = Load(2, 1, 0.5)


def test_the_last_delta_and_the_load_survive() -> None:
    assert decode_final(encode_final(LAST, LOAD)) == (LAST, LOAD)
    assert decode_final(encode_final(LAST, None)) == (LAST, None)


def test_the_last_delta_is_a_delta_with_the_load_after_it() -> None:
    """Protocol 1 reads the load at position 5."""
    names = [field.name for field in structs.fields(FinalDelta)]
    assert names[:5] == [field.name for field in structs.fields(Delta)][:5]
    assert names[5] == "load"
    old = protocol_1.read(protocol_1.Kind.END, encode_final(LAST, LOAD), at="ingress")
    assert (old.token_ids, old.texts, old.embedding) == ([7], ["x"], b"1234")
    assert old.finish == protocol_1.Finish("length", 3, 4, 1)
    assert old.load == protocol_1.Load(2, 1, 0.5)


def test_deltas_are_read_as_one_and_longer_ones_too() -> None:
    bodies = [msgpack.encode(Delta([1], cached_tokens=3)), msgpack.encode([[2], ["b"], None, 0])]
    bodies.append(msgpack.encode([[3], [], None, 0, b"", None, "of a later release"]))
    assert decode_deltas(bodies) == Delta([1, 2, 3], ["b"], None, 3)


def test_scores_stay_with_their_tokens() -> None:
    first, second = Delta([1, 2], scores=Scores([b"1", b"2"], [b"", b"p"])), Delta([], ["x"])
    third = Delta([3], scores=Scores([b"3"]))
    both = Delta([1, 2, 3], ["x"], scores=Scores([b"1", b"2", b"3"], [b"", b"p"]))
    assert decode_deltas([msgpack.encode(delta) for delta in (first, second, third)]) == both
    last = structs.replace(LAST, scores=Scores([b"7"]))
    assert decode_final(encode_final(last, LOAD)) == (last, LOAD)
    old = protocol_1.read(protocol_1.Kind.END, encode_final(last, LOAD), at="ingress")
    assert old.load == protocol_1.Load(2, 1, 0.5)


def _end(finish: list[object]) -> bytes:
    return msgpack.encode([[7], [], finish, 0, b"", [1, 2, 0.5, "new"], None, "new"])


def test_an_unknown_reason_counts_as_stop() -> None:
    delta, load = decode_final(_end(["content_filter", 3, 4, 1, 0, None, "new"]))
    assert delta == Delta([7], finish=Finish("stop", 3, 4, 1))
    assert load == Load(1, 2, 0.5)


@pytest.mark.parametrize("finish", [["stop"], ["stop", "3", 4], [1, 3, 4], ["new", 3, 4, "x"]])
def test_a_finish_that_is_wrong_otherwise_does_not_decode(finish: list[object]) -> None:
    with pytest.raises(DecodeError):
        decode_final(_end(finish))
    with pytest.raises(DecodeError):
        decode_final(b"\xc1")


def test_a_reason_that_protocol_1_does_not_know_travels_as_stop() -> None:
    delta = Delta([7], finish=Finish("tool_calls", 3, 4))
    old = protocol_1.read(protocol_1.Kind.END, encode_final(delta, LOAD), at="ingress")
    assert old.finish.reason == "stop"
