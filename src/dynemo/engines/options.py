"""Parses an engine's own arguments, after `--` or from a file, into names with Python values."""

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import DecodeError, json

from dynemo.errors import UsageError
from dynemo.foreign import decode_json
from dynemo.messages.spec import EngineSpec
from dynemo.spelling import quoted, unknown

if TYPE_CHECKING:
    from argparse import Action

#: How messages describe a type of values, in the terms of JSON. Other types are not checked.
_TYPE_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
}


def read_options(
    engine: str, options: list[str], known: Collection[str], *, see: str = ""
) -> dict[str, Any]:
    """Parses `--name value`, `--name=value`, or `--name` alone for True. `-` and `_` are equal.

    A value is JSON if possible, otherwise text. `known` are the engine's names, with `_`, and `see`
    says where the engine lists them. Raises UsageError for an unknown name.
    """
    read: dict[str, Any] = {}
    left = list(options)
    while left:
        word = left.pop(0)
        if not word.startswith("--"):
            raise UsageError(
                f"{quoted(word)} after `--` follows no option of {engine}. Options begin with `--`."
            )
        flag, equals, value = word.partition("=")
        name = flag[2:].replace("-", "_")
        if name not in known:
            flags = [f"--{each.replace('_', '-')}" for each in known]
            raise unknown_option(engine, flag, flags, see=see)
        if equals:
            read[name] = _value(value)
        elif left and not left[0].startswith("--"):
            read[name] = _value(left.pop(0))
        else:
            read[name] = True
    return read


def unknown_option(engine: str, flag: str, known: Iterable[str], *, see: str = "") -> UsageError:
    """Returns the error for a word after `--`. `see` says where the engine lists its options."""
    return UsageError(unknown(f"{engine} option", flag, known, otherwise=see))


def unknown_argument(engine: str, name: str, known: Iterable[str], *, see: str = "") -> UsageError:
    """Returns the error for a key in the file of --extra-engine-args."""
    place = " in --extra-engine-args"
    return UsageError(unknown(f"{engine} option", name, known, place=place, otherwise=see))


def refuse_options(spec: EngineSpec, name: str) -> None:
    """Raises UsageError if the user set any options, for an engine that has none."""
    for word in [*spec.options, *spec.extra]:
        raise UsageError(
            f"The engine {name} has no options of its own, but got {quoted(word)}. Leave it out."
        )


def check_values(engine: str, values: Mapping[str, Any], types: Mapping[str, Any]) -> None:
    """Raises UsageError for a value whose type differs from the type of its name.

    Types are `bool`, `int`, `float` and `str`. None matches every type.
    """
    for name, value in values.items():
        value_type = types.get(name)
        taken = (int, float) if value_type is float else (value_type,)
        if value_type in _TYPE_NAMES and value is not None and type(value) not in taken:
            raise UsageError(
                f"The {engine} option {name} takes {_TYPE_NAMES[value_type]}, not {in_json(value)}."
            )


def value_types(actions: Iterable["Action"]) -> dict[str, Any]:
    """Returns the types for `check_values`: those of the names that take at most one value."""
    return {
        action.dest: bool if action.nargs == 0 else action.type
        for action in actions
        if action.nargs in (0, None)
    }


def in_json(value: Any) -> str:
    """Returns a value as it is written in a JSON file."""
    return json.encode(value).decode()


def _value(text: str) -> Any:
    try:
        return decode_json(text, Any)
    except DecodeError:
        return text
