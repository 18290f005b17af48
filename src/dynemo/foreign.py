"""Decodes data that others wrote: clients, files, engines, and other processes.

Everything that cannot be read raises msgspec's DecodeError, of which ValidationError is a kind. A
bare decoder also raises RecursionError for data that is nested too deeply, and UnicodeDecodeError
or ValueError for some other data. So no other file decodes JSON, msgpack or TOML
(`tests/test_layers.py`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from json import JSONDecodeError, loads
from typing import Any, TypeVar

from msgspec import DecodeError, json, msgpack

T = TypeVar("T")


def json_decoder(kind: type[T]) -> Callable[[bytes | str], T]:
    """A decoder of JSON to `kind`, for many values. It raises DecodeError."""
    return _guarded(json.Decoder(kind).decode)


def msgpack_decoder(kind: type[T]) -> Callable[[bytes], T]:
    """A decoder of msgpack to `kind`, for many values. It raises DecodeError."""
    return _guarded(msgpack.Decoder(kind).decode)


def decode_json(data: bytes | str, kind: type[T]) -> T:
    """Raises DecodeError."""
    with _one_error():
        return json.decode(data, type=kind)


def decode_any_json(data: bytes | str) -> Any:
    """Reads JSON as Python does: with `NaN`, `Infinity` and integers of any size.

    Its errors name line and column. Raises DecodeError.
    """
    with _one_error():
        return loads(data)


def decode_msgpack(data: bytes, kind: type[T]) -> T:
    """Raises DecodeError."""
    with _one_error():
        return msgpack.decode(data, type=kind)


def decode_toml(text: str) -> dict[str, Any]:
    """Raises DecodeError."""
    import tomllib  # imported here because only a file of --config needs it

    with _one_error():
        return tomllib.loads(text)


def most_values(data: bytes) -> int:
    """The most values that JSON can hold. It counts commas and brackets inside texts too."""
    return data.count(b",") + data.count(b"[") + data.count(b"{")


def is_deeper(value: Any, depth: int) -> bool:
    """Whether dicts and lists are nested more than `depth` deep in a decoded value."""
    level = [value]
    for _ in range(depth):
        level = [
            child
            for part in level
            if isinstance(part, dict | list)
            for child in (part.values() if isinstance(part, dict) else part)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def _guarded(decode: Callable[[Any], T]) -> Callable[[Any], T]:
    def guarded(data: Any) -> T:
        try:
            return decode(data)
        except (RecursionError, ValueError) as error:
            raise as_decode_error(error) from None

    return guarded


@contextmanager
def _one_error() -> Iterator[None]:
    try:
        yield
    except (RecursionError, ValueError) as error:
        raise as_decode_error(error) from None


def as_decode_error(error: Exception) -> DecodeError:
    """The DecodeError for what a bare decoder has raised."""
    if isinstance(error, DecodeError):
        return error
    if isinstance(error, RecursionError):
        return DecodeError("It is nested too deeply")
    if isinstance(error, UnicodeDecodeError):
        return DecodeError("It is not valid UTF-8")
    if isinstance(error, JSONDecodeError):
        return DecodeError(f"{error.msg} (line {error.lineno}, column {error.colno})")
    return DecodeError(str(error))
