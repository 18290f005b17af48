"""The fields of a body that restrict the answer's text, to a `Guide`.

Other servers have such fields under other names: vLLM's `guided_json` and its like,
`structured_outputs`, llama.cpp's `grammar` and `json_schema`. A request may set one of them.
"""

import re
from collections.abc import Iterator
from typing import Any

from msgspec import DecodeError, json

from dynemo.api.openai.structured import ResponseFormat, StructuredOutputs
from dynemo.api.openai.types import ChatRequest
from dynemo.errors import RequestError, UnsupportedField
from dynemo.foreign import decode_json, is_deeper
from dynemo.limits import JSON_DEPTH
from dynemo.messages.request import Guide

_ANY_OBJECT = '{"type":"object"}'
#: The fields of `response_format`, by its type.
_FORMAT_FIELDS = {
    "text": (),
    "json_object": ("schema",),
    "json_schema": ("json_schema",),
    "grammar": ("grammar",),
    "structural_tag": ("structures", "triggers"),
}
_FREE_SPACE = {"whitespace_flexible": True}
#: Texts, classes and comments of a grammar, in which `::=` has no meaning.
_QUIET = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|#[^\n]*|//[^\n]*', re.DOTALL)

#: A guide, and the name of its field in the body.
Named = tuple[str, Guide]


def read_guide(asked: ChatRequest) -> Named | None:
    """Raises RequestError, UnsupportedField."""
    found = [
        *_of_response_format(asked.response_format),
        *_of_fields(asked),
        *_of_structured_outputs(asked.structured_outputs),
    ]
    if len(found) > 1:
        names = " and ".join(f"'{name}'" for name, _ in found)
        raise RequestError(
            f"The fields {names} exclude each other. Set one of them.",
            param=found[1][0],
            detail="invalid_value",
        )
    return found[0] if found else None


def _of_response_format(wanted: ResponseFormat | None) -> Iterator[Named]:
    name = "response_format"
    if wanted is None:
        return
    _refuse_fields_of_other_types(wanted)
    if wanted.type == "text":
        return
    if wanted.type == "json_object":
        yield name, _of_schema(wanted.schema or _ANY_OBJECT, f"{name}.schema")
    elif wanted.type == "grammar":
        yield name, _of_grammar(_given(wanted.grammar, "response_format.grammar"))
    elif wanted.type == "structural_tag":
        fields = {"structures": wanted.structures, "triggers": wanted.triggers}
        for key, value in fields.items():
            _given(value, f"response_format.{key}")
        yield name, _of_tag({"type": "structural_tag", **fields}, name)
    else:
        schema = _given(wanted.json_schema, "response_format.json_schema").schema
        place = "response_format.json_schema.schema"
        if schema is None:
            raise missing(place)
        yield name, _of_schema(schema, place)


def _refuse_fields_of_other_types(wanted: ResponseFormat) -> None:
    for name in wanted.__struct_fields__:
        if name in ("type", *_FORMAT_FIELDS[wanted.type]) or getattr(wanted, name) is None:
            continue
        field = f"response_format.{name}"
        raise RequestError(
            f"Invalid '{field}': a format of type '{wanted.type}' does not have it.",
            param=field,
            detail="invalid_value",
        )


def _of_fields(asked: ChatRequest) -> Iterator[Named]:
    for name in ("guided_json", "json_schema"):
        if (schema := getattr(asked, name)) is not None:
            yield name, _of_schema(schema, name)
    if asked.guided_regex is not None:
        yield "guided_regex", Guide("regex", asked.guided_regex)
    if asked.guided_choice is not None:
        yield "guided_choice", _of_choices(asked.guided_choice)
    for name in ("guided_grammar", "grammar"):
        if grammar := getattr(asked, name):
            yield name, _of_grammar(grammar)
    if asked.structural_tag is not None:
        yield "structural_tag", _of_tag(asked.structural_tag, "structural_tag")


def _of_structured_outputs(wanted: StructuredOutputs | None) -> Iterator[Named]:
    if wanted is None:
        return
    for key in ("disable_additional_properties", "whitespace_pattern"):
        if getattr(wanted, key):
            field = f"structured_outputs.{key}"
            raise UnsupportedField(f"'{field}' is not supported.", param=field)
    has_free_space = wanted.disable_any_whitespace is False
    place = "structured_outputs."
    if wanted.json is not None:
        yield f"{place}json", _of_schema(wanted.json, f"{place}json", has_free_space)
    if wanted.json_object:
        yield f"{place}json_object", _of_schema(_ANY_OBJECT, place, has_free_space)
    if wanted.regex is not None:
        yield f"{place}regex", Guide("regex", wanted.regex)
    if wanted.choice is not None:
        yield f"{place}choice", _of_choices(wanted.choice)
    if wanted.grammar:
        yield f"{place}grammar", _of_grammar(wanted.grammar)
    if wanted.structural_tag is not None:
        yield f"{place}structural_tag", _of_tag(wanted.structural_tag, f"{place}structural_tag")


def _of_schema(schema: dict[str, Any] | str, place: str, has_free_space: bool = False) -> Guide:
    """`has_free_space`: the answer may have white space between the parts of its JSON."""
    value = _object(schema, place)
    check_depth(value, place)
    if has_free_space:
        value = {"x-guidance": _FREE_SPACE, **value}
    return Guide("json_schema", json.encode(value).decode())


def _of_choices(choices: list[str]) -> Guide:
    return Guide("choice", json.encode(choices).decode())


def _of_grammar(text: str) -> Guide:
    """GBNF defines its rules with `::=`, and Lark with a colon."""
    is_gbnf = "::=" in _QUIET.sub("", text)
    return Guide("grammar" if is_gbnf else "lark", text)


def _of_tag(tag: dict[str, Any] | str, place: str) -> Guide:
    value = _object(tag, place)
    check_depth(value, place)
    return Guide("structural_tag", json.encode(value).decode())


def _object(value: dict[str, Any] | str, place: str) -> dict[str, Any]:
    """A JSON object that a client sends as such, or as text."""
    if isinstance(value, dict):
        return value
    try:
        return decode_json(value, dict[str, Any])
    except DecodeError as error:
        raise RequestError(
            f"Invalid '{place}': it is not the text of a JSON object ({error}).",
            param=place,
            detail="invalid_value",
        ) from None


def _given(value: Any, field: str) -> Any:
    if not value and value != []:
        raise missing(field)
    return value


def missing(field: str) -> RequestError:
    return RequestError(
        f"Missing required parameter: '{field}'.", param=field, detail="missing_required_parameter"
    )


def check_depth(value: Any, field: str) -> None:
    """Raises RequestError for a value that is nested too deeply."""
    if is_deeper(value, JSON_DEPTH):
        raise RequestError(
            f"Invalid '{field}': it may be nested {JSON_DEPTH} deep, and is deeper.",
            param=field,
            detail="invalid_value",
        )
