"""Requests that a server cannot read."""

import pytest
from msgspec import DecodeError, msgpack

from dynemo.connection.framed import FramedConnection
from dynemo.connection.server import EngineHandler, StreamSink
from dynemo.errors import UnsupportedField
from support.planes_world import FakeEngine, make_request

SINK = StreamSink(FramedConnection(lambda _: None, lambda _: None), 1)


def test_a_guide_of_a_later_release_is_refused_and_moves_to_no_other_worker() -> None:
    request = {**msgpack.decode(msgpack.encode(make_request())), "guide": ["haiku", "[0-9]+"]}
    with pytest.raises(UnsupportedField, match=r"'haiku'.*Upgrade the worker"):
        EngineHandler(FakeEngine()).answer(msgpack.encode(request), SINK)


def test_an_invalid_request_does_not_decode() -> None:
    with pytest.raises(DecodeError):
        EngineHandler(FakeEngine()).answer(b"\xc1", SINK)
