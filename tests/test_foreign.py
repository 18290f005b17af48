"""The decoders of foreign data: whatever they cannot read ends in one error."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import DecodeError, ValidationError, msgpack

from dynemo.foreign import (
    decode_any_json,
    decode_json,
    decode_msgpack,
    decode_toml,
    is_deeper,
    json_decoder,
    msgpack_decoder,
)

Decode = Callable[[Any], Any]
JSON: list[Decode] = [json_decoder(dict), lambda data: decode_json(data, dict), decode_any_json]
MSGPACK: list[Decode] = [msgpack_decoder(list), lambda data: decode_msgpack(data, list)]
#: Far more than the recursion limit of any Python.
DEEP = 100_000


@pytest.mark.parametrize("decode", JSON)
@pytest.mark.parametrize("data", [b'{"a":' * DEEP, b'{"a":' + b"[" * DEEP])
def test_deep_json_does_not_decode(decode: Decode, data: bytes) -> None:
    with pytest.raises(DecodeError, match="nested too deeply"):
        decode(data)


@pytest.mark.parametrize("decode", MSGPACK)
@pytest.mark.parametrize("data", [b"\x91" * DEEP + b"\xc0", b"\x81\xa1a" * DEEP + b"\xc0"])
def test_deep_msgpack_does_not_decode(decode: Decode, data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(data)


def test_deep_toml_does_not_decode() -> None:
    with pytest.raises(DecodeError, match="nested too deeply"):
        decode_toml("a = " + "[" * DEEP)


@pytest.mark.parametrize("decode", JSON)
@pytest.mark.parametrize("data", [b"", b"{", b'{"a":"\xff"}', b"\xff\xfe", b"\x00"])
def test_other_data_does_not_decode(decode: Decode, data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(data)


def test_a_number_of_many_digits_does_not_decode() -> None:
    for decode in JSON:
        with pytest.raises(DecodeError):
            decode(b'{"a":%b}' % (b"1" * 10_000))


def test_a_wrong_type_stays_a_validation_error() -> None:
    with pytest.raises(ValidationError, match="Expected `int`"):
        json_decoder(dict[str, int])(b'{"a":"b"}')


def test_what_is_right_decodes() -> None:
    assert decode_json('{"a":1}', dict[str, int]) == {"a": 1}
    assert decode_msgpack(msgpack.encode([1]), list[int]) == [1]
    assert decode_toml("a = 1") == {"a": 1}
    assert decode_any_json(b'{"a": Infinity}') == {"a": float("inf")}


@pytest.mark.parametrize(
    ("value", "depth"),
    [([], 1), ([1, 2], 1), ({"a": {}}, 2), ([[1], {"a": [[]]}], 4)],
)
def test_depth(value: object, depth: int) -> None:
    assert not is_deeper(value, depth)
    assert is_deeper(value, depth - 1)
