"""An engine's own arguments, after `--` or in a file: as names with Python values, or none."""

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import DecodeError, json

from dynemo.errors import UsageError
from dynemo.messages.spec import EngineSpec
from dynemo.spelling import quoted, unknown

if TYPE_CHECKING:
    from argparse import Action

#: What a value has to be, in the words of JSON; of other kinds nothing is known.
_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
}


def read_options(
    engine: str, options: list[str], known: Collection[str], *, see: str = ""
) -> dict[str, Any]:
    """`--name value`, `--name=value`, or `--name` alone for True; `-` and `_` are the same.

    A value is JSON if it can be, else text. `known` are the engine's names, with `_`; `see` says
    where the engine lists them. Raises UsageError for an unknown name.
    """
    read: dict[str, Any] = {}
    words = list(options)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise UsageError(
                f"{quoted(word)} after `--` follows no option of {engine}; options begin with `--`."
            )
        flag, equals, value = word.partition("=")
        name = flag[2:].replace("-", "_")
        if name not in known:
            flags = [f"--{each.replace('_', '-')}" for each in known]
            raise unknown_option(engine, flag, flags, see=see)
        if equals:
            read[name] = _value(value)
        elif words and not words[0].startswith("--"):
            read[name] = _value(words.pop(0))
        else:
            read[name] = True
    return read


def unknown_option(engine: str, flag: str, known: Iterable[str], *, see: str = "") -> UsageError:
    """For a word after `--`. `see` says where the engine lists its options, if they are many."""
    return UsageError(unknown(f"{engine} option", flag, known, otherwise=see))


def unknown_argument(engine: str, name: str, known: Iterable[str], *, see: str = "") -> UsageError:
    """For a key in the file of --extra-engine-args."""
    place = " in --extra-engine-args"
    return UsageError(unknown(f"{engine} option", name, known, place=place, otherwise=see))


def refuse_options(spec: EngineSpec, name: str) -> None:
    """For an engine that has none. Raises UsageError for the first that was given."""
    for word in [*spec.options, *spec.extra]:
        raise UsageError(f"{name} has no options of its own, but got {quoted(word)}; leave it out.")


def check_values(engine: str, values: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """Raises UsageError for a value that is not of its name's kind: `bool`, `int`, `float` or
    `str`. None is of all kinds."""
    for name, value in values.items():
        kind = kinds.get(name)
        taken = (int, float) if kind is float else (kind,)
        if kind in _WORDS and value is not None and type(value) not in taken:
            raise UsageError(f"{engine}'s {name} takes {_WORDS[kind]}, not {in_json(value)}.")


def kinds_of(actions: Iterable["Action"]) -> dict[str, Any]:
    """For `check_values`: the names that argparse would read one value for, or none."""
    return {
        action.dest: bool if action.nargs == 0 else action.type
        for action in actions
        if action.nargs in (0, None)
    }


def in_json(value: Any) -> str:
    """A value as it stands in a file."""
    return json.encode(value).decode()


def _value(text: str) -> Any:
    try:
        return json.decode(text)
    except DecodeError:
        return text
