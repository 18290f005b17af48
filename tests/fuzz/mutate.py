"""Makes new inputs from known ones, and JSON from a schema. Equal seeds make equal inputs."""

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

_MOST = 1 << 20  #: bytes of an input
_NUMBERS = (0, 1, -1, 127, 128, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64)
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1e308, -0.0, 2**53, 2**63, 2**64, "", "a", "\x00", "\x1b]52;c;x\x07",
    "a" * 5000, [], {}, [[]], {"": None}, [None], ["a"], [{}], {"type": "text", "text": "a"},
    {"type": "image_url"},
)  # fmt: skip


def mutate(
    data: bytes, others: Sequence[bytes], words: Sequence[bytes], chance: random.Random
) -> bytes:
    """Changes an input in one to six places. `words` are parts that the format knows."""
    for _ in range(chance.randint(1, 6)):
        data = chance.choice(_CHANGES)(data, others, words, chance)[:_MOST]
    return data


def _flip(data: bytes, _others: object, _words: object, chance: random.Random) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _number(data: bytes, _others: object, _words: object, chance: random.Random) -> bytes:
    """Overwrites bytes with a number at an edge, in either byte order."""
    size = chance.choice((1, 2, 4, 8))
    value = chance.choice(_NUMBERS) % (1 << 8 * size)
    at = chance.randrange(len(data) + 1)
    written = value.to_bytes(size, chance.choice(("little", "big")))
    return data[:at] + written + data[at + size :]


def _cut(data: bytes, _others: object, _words: object, chance: random.Random) -> bytes:
    start, end = _range(data, chance)
    return data[:start] + data[end:]


def _end(data: bytes, _others: object, _words: object, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _repeat(data: bytes, _others: object, _words: object, chance: random.Random) -> bytes:
    """Repeats a part, often so many times that it nests deeply or grows long."""
    start, end = _range(data, chance)
    part = data[start : min(end, start + 200)]
    return data[:start] + part * chance.choice((2, 3, 50, 2000)) + data[start:]


def _splice(data: bytes, others: Sequence[bytes], _words: object, chance: random.Random) -> bytes:
    other = chance.choice(others)
    start, end = _range(other, chance)
    at = chance.randrange(len(data) + 1)
    return data[:at] + other[start:end] + data[at:]


def _word(data: bytes, _others: object, words: Sequence[bytes], chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    word = chance.choice(words) if words else chance.randbytes(chance.randint(1, 16))
    return data[:at] + word * chance.choice((1, 1, 1, 40, 3000)) + data[at:]


_CHANGES = (_flip, _number, _cut, _end, _repeat, _splice, _word)


def _range(data: bytes, chance: random.Random) -> tuple[int, int]:
    start = chance.randrange(len(data) + 1)
    return start, min(len(data), start + int(chance.expovariate(1 / 40)) + 1)


def json_body(schema: Mapping[str, Any], every: Mapping[str, Any], chance: random.Random) -> bytes:
    """Makes a body of an OpenAPI schema, with some values of the wrong type.

    `every` holds the schemas that a `$ref` may name.
    """
    return json.dumps(_value(schema, every, chance, 0), allow_nan=True).encode()


def _value(
    schema: Mapping[str, Any], every: Mapping[str, Any], chance: random.Random, depth: int
) -> Any:
    if chance.random() < 0.06 or depth > 8:
        return chance.choice(_VALUES)
    if name := schema.get("$ref"):
        return _value(every[name.rpartition("/")[2]], every, chance, depth + 1)
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return _value(chance.choice(options), every, chance, depth + 1)
    if "enum" in schema:
        return chance.choice(schema["enum"])
    if "const" in schema:
        return schema["const"]
    match schema.get("type"):
        case "object":
            return _object(schema, every, chance, depth)
        case "array":
            items = schema.get("items") or {}
            return [_value(items, every, chance, depth + 1) for _ in range(chance.randint(0, 3))]
        case "string":
            return chance.choice(
                ("", "a", "user", "Hello", "\u202e", "\x00", "é" * 300, "json_schema")
            )
        case "integer":
            return chance.choice((0, 1, 2, 16, -1, 2**31, 2**63))
        case "number":
            return chance.choice((0, 0.5, 1, 2, -1, 1e300))
        case "boolean":
            return chance.random() < 0.5
        case _:
            return chance.choice(_VALUES)


def _object(
    schema: Mapping[str, Any], every: Mapping[str, Any], chance: random.Random, depth: int
) -> dict[str, Any]:
    required = set(schema.get("required", ()))
    made = {
        name: _value(part, every, chance, depth + 1)
        for name, part in schema.get("properties", {}).items()
        if name in required or chance.random() < 0.25
    }
    if chance.random() < 0.05:
        made[chance.choice(("", "unheard_of", "a" * 2000))] = chance.choice(_VALUES)
    return made
