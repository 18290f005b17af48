"""What follows `--`: for an engine whose arguments are names with Python values, and for none."""

from collections.abc import Collection
from typing import Any

from msgspec import DecodeError, json

from dynemo.errors import UsageError
from dynemo.messages import EngineSpec
from dynemo.spelling import nearest


def read_options(engine: str, options: list[str], known: Collection[str]) -> dict[str, Any]:
    """`--name value`, `--name=value`, or `--name` alone for True; `-` and `_` are the same.

    A value is JSON where it can be, else text. `known` are the engine's names, with `_`. Raises
    UsageError for a word that is none of them.
    """
    read: dict[str, Any] = {}
    words = list(options)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise UsageError(f"{word!r} after `--` belongs to no option of {engine}.")
        flag, equals, value = word.partition("=")
        name = flag[2:].replace("-", "_")
        if name not in known:
            raise UsageError(_unknown(engine, flag, known))
        if equals:
            read[name] = _value(value)
        elif words and not words[0].startswith("--"):
            read[name] = _value(words.pop(0))
        else:
            read[name] = True
    return read


def refuse_options(spec: EngineSpec, name: str) -> None:
    """For an engine that has none. Raises UsageError for the first that was given."""
    for word in [*spec.options, *spec.extra]:
        raise UsageError(f"{name} has no options of its own, but got {word!r}.")


def _unknown(engine: str, flag: str, known: Collection[str]) -> str:
    names = [f"--{name.replace('_', '-')}" for name in known]
    near = nearest(flag, names)
    hint = f"did you mean {near}?" if near else "its own documentation lists them."
    return f"{engine} has no option {flag!r}; {hint}"


def _value(text: str) -> Any:
    try:
        return json.decode(text)
    except DecodeError:
        return text
