"""The types of a tool's parameters, for formats that write values without quotes."""

from collections.abc import Iterable
from typing import Any

from msgspec import DecodeError

from dynemo.answer.formats.json_text import quoted, read_value
from dynemo.answer.formats.python_text import read_literal
from dynemo.answer.formats.source import NotACall, Source, Steps
from dynemo.foreign import decode_any_json
from dynemo.limits import SCHEMA_REFERENCES
from dynemo.messages.ask import Tool

Types = frozenset[str]

_ANY: Types = frozenset()
_TEXT: Types = frozenset({"string"})
_NAMES = frozenset({"string", "integer", "number", "boolean", "null", "object", "array"})
_SYNONYMS = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
_SYNONYMS |= {"dict": "object", "list": "array", "text": "string", "enum": "string"}
_WORDS = {"true": "true", "false": "false", "null": "null", "none": "null", "nil": "null"}


def parameters_of(tool: Tool) -> dict[str, Any]:
    """Returns the JSON schema of a tool's arguments; empty if it has none."""
    function = tool.definition.get("function", tool.definition)
    schema = function.get("parameters") if isinstance(function, dict) else None
    if schema is None and isinstance(function, dict):
        schema = function.get("input_schema")
    return schema if isinstance(schema, dict) else {}


def types_of(tool: Tool, parameter: str) -> Types:
    """Returns the types that a parameter may have. Empty: the tool does not say."""
    schema = parameters_of(tool)
    properties = schema.get("properties")
    found = properties.get(parameter) if isinstance(properties, dict) else None
    if found is None:
        found = schema.get("additionalProperties")
    return frozenset(_types(found, schema, SCHEMA_REFERENCES))


def names_of(tool: Tool) -> list[str]:
    """Returns the names of a tool's parameters, in order."""
    properties = parameters_of(tool).get("properties")
    return list(properties) if isinstance(properties, dict) else []


def _types(schema: Any, root: dict[str, Any], left: int) -> Iterable[str]:
    if not isinstance(schema, dict) or not left:
        return
    kind = schema.get("type")
    for name in kind if isinstance(kind, list) else [kind]:
        if isinstance(name, str):
            lower = name.lower()
            name = _SYNONYMS.get(lower, lower)
            if name in _NAMES:
                yield name
    if kind is not None:
        return
    for key in ("anyOf", "oneOf", "allOf"):
        parts = schema.get(key)
        for part in parts if isinstance(parts, list) else ():
            yield from _types(part, root, left - 1)
    values = schema.get("enum")
    for value in values if isinstance(values, list) else ():
        yield _type_of(value)
    if "const" in schema:
        yield _type_of(schema["const"])
    if isinstance(schema.get("$ref"), str):
        yield from _types(_target(schema["$ref"], root), root, left - 1)
    if "properties" in schema:
        yield "object"


def _target(reference: str, root: dict[str, Any]) -> Any:
    found: Any = root
    if not reference.startswith("#/"):
        return None
    for step in reference[2:].split("/"):
        found = found.get(step) if isinstance(found, dict) else None
    return found


def _type_of(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def is_only_text(types: Types) -> bool:
    """Whether a value of these types is text, whatever it says."""
    return types == _TEXT


def json_value(text: str, types: Types) -> str:
    """Returns the JSON of a value that is written without quotes.

    A value that fits none of the types is a string.
    """
    if types == _TEXT:
        return quoted(text)
    bare = text.strip()
    others = types - _TEXT
    for value in _readings(bare, others):
        if types == _ANY or _fits(value, others):
            return value
    return quoted(text)


def _readings(text: str, types: Types) -> Iterable[str]:
    """Yields what a text may mean, as JSON."""
    value = whole(text, read_value)
    if value:
        yield value
    if text.lower() in _WORDS and (types or text[:1].isupper()):
        yield _WORDS[text.lower()]
    if text[:1] in "{[(":
        value = whole(text, read_literal)
        if value:
            yield value


def whole(text: str, read: Any) -> str:
    """Returns the JSON of a text that is one value, or empty text."""
    source, parts = Source(), list[str]()
    source.feed(text)
    source.is_over = True
    try:
        for _ in _only(source, read(source, parts.append)):
            pass
    except NotACall:
        return ""
    return "".join(parts)


def _only(source: Source, steps: Steps[None]) -> Steps[None]:
    yield from steps
    if (yield from source.spaces()):
        raise NotACall


def _fits(value: str, types: Types) -> bool:
    first = value[0]
    if first in "{[":
        return ("object" if first == "{" else "array") in types
    if first == '"':
        return False
    if first in "tf":
        return "boolean" in types
    if first == "n":
        return "null" in types
    return "number" in types or ("integer" in types and _is_whole(value))


def _is_whole(number: str) -> bool:
    try:
        value = decode_any_json(number)
    except DecodeError:
        return False
    return isinstance(value, int) or value.is_integer()


def same_json(text: str, value: object) -> bool:
    """Whether a text is the JSON of a value."""
    try:
        return bool(decode_any_json(text) == value)
    except DecodeError:
        return False
