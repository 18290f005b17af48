"""Every field of a body that restricts an answer becomes one guide."""

from typing import Any

import msgspec
import pytest

from dynemo.api.openai.chat import read_chat_ask, read_chat_call
from dynemo.errors import RequestError, UnsupportedField
from dynemo.messages.request import Guide

OBJECT = {"type": "object", "properties": {"a": {"type": "integer"}}}
SCHEMA = Guide("json_schema", '{"type":"object","properties":{"a":{"type":"integer"}}}')
TAG = {"structures": [{"begin": "<f>", "schema": {}, "end": "</f>"}], "triggers": ["<f>"]}
TAG_TEXT = msgspec.json.encode(TAG).decode()
GBNF = 'root ::= "a: b"'
LARK = 'start: "a ::= b" // ::=\n'


def _body(**fields: Any) -> bytes:
    return msgspec.json.encode({"messages": [{"role": "user", "content": "hi"}], **fields})


GUIDES: list[tuple[dict[str, Any], Guide, str]] = [
    ({"guided_json": OBJECT}, SCHEMA, "guided_json"),
    ({"guided_json": msgspec.json.encode(OBJECT).decode()}, SCHEMA, "guided_json"),
    ({"json_schema": OBJECT}, SCHEMA, "json_schema"),
    ({"guided_regex": "[ab]"}, Guide("regex", "[ab]"), "guided_regex"),
    ({"guided_regex": ""}, Guide("regex", ""), "guided_regex"),
    ({"guided_choice": ["a", "é"]}, Guide("choice", '["a","é"]'), "guided_choice"),
    ({"guided_grammar": GBNF}, Guide("grammar", GBNF), "guided_grammar"),
    ({"guided_grammar": LARK}, Guide("lark", LARK), "guided_grammar"),
    ({"grammar": GBNF}, Guide("grammar", GBNF), "grammar"),
    ({"structural_tag": TAG}, Guide("structural_tag", TAG_TEXT), "structural_tag"),
    ({"response_format": {"type": "grammar", "grammar": LARK}}, Guide("lark", LARK),
     "response_format"),
    ({"response_format": {"type": "structural_tag", **TAG}},
     Guide("structural_tag", '{"type":"structural_tag",' + TAG_TEXT[1:]), "response_format"),
    ({"response_format": {"type": "json_object"}}, Guide("json_schema", '{"type":"object"}'),
     "response_format"),
    ({"response_format": {"type": "json_object", "schema": OBJECT}}, SCHEMA, "response_format"),
    ({"response_format": {"type": "text"}, "guided_regex": "a"}, Guide("regex", "a"),
     "guided_regex"),
]  # fmt: skip
INSIDE: list[tuple[dict[str, Any], Guide]] = [
    ({"json": OBJECT}, SCHEMA),
    ({"json": OBJECT, "disable_any_whitespace": True}, SCHEMA),
    ({"json_object": True}, Guide("json_schema", '{"type":"object"}')),
    ({"json_object": False, "regex": "a+"}, Guide("regex", "a+")),
    ({"choice": ["x"]}, Guide("choice", '["x"]')),
    ({"grammar": GBNF}, Guide("grammar", GBNF)),
    ({"structural_tag": TAG_TEXT}, Guide("structural_tag", TAG_TEXT)),
    (
        {"json": {"type": "integer"}, "disable_any_whitespace": False},
        Guide("json_schema", '{"x-guidance":{"whitespace_flexible":true},"type":"integer"}'),
    ),
]


@pytest.mark.parametrize(("fields", "guide", "name"), GUIDES)
def test_a_field_is_a_guide(fields: dict[str, Any], guide: Guide, name: str) -> None:
    call = read_chat_call(_body(**fields))
    assert (call.ask.guide, call.fields["guide"]) == (guide, name)


@pytest.mark.parametrize(("inside", "guide"), INSIDE)
def test_structured_outputs_hold_a_guide(inside: dict[str, Any], guide: Guide) -> None:
    call = read_chat_call(_body(structured_outputs=inside))
    assert call.ask.guide == guide
    assert call.fields["guide"].startswith("structured_outputs.")


@pytest.mark.parametrize("fields", [{}, {"structured_outputs": {}}, {"guided_json": None}])
def test_without_such_a_field_there_is_no_guide(fields: dict[str, Any]) -> None:
    assert read_chat_ask(_body(**fields)).guide is None


@pytest.mark.parametrize(
    "fields",
    [
        {"guided_regex": "a", "guided_choice": ["a"]},
        {"response_format": {"type": "json_object"}, "guided_json": OBJECT},
        {"structured_outputs": {"regex": "a", "json_object": True}},
        {"guided_grammar": GBNF, "grammar": GBNF},
    ],
)
def test_two_guides_exclude_each_other(fields: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=r"'.*' and '.*' exclude each other"):
        read_chat_ask(_body(**fields))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_json": "[]"}, "guided_json"),
        ({"guided_json": "\ud800"}, None),
        ({"guided_json": 5}, "guided_json"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_choice": ["a", 5]}, "guided_choice[1]"),
        ({"guided_regex": ["a"]}, "guided_regex"),
        ({"structured_outputs": {"json": "nope"}}, "structured_outputs.json"),
        ({"structured_outputs": {"yaml": "nope"}}, "structured_outputs.yaml"),
        ({"response_format": {"type": "structural_tag"}}, "response_format.structures"),
        ({"structural_tag": "]"}, "structural_tag"),
        ({"guided_json": {"a": [[[]]] }, "json_schema": {}}, "json_schema"),
    ],
)  # fmt: skip
def test_a_mistake_names_its_field(fields: dict[str, Any], param: str | None) -> None:
    body = _body(**fields) if param else _body(guided_json="?").replace(b'"?"', b'"\\ud800"')
    with pytest.raises(RequestError) as caught:
        read_chat_ask(body)
    assert caught.value.param == param


def test_what_would_change_the_answer_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedField) as caught:
        read_chat_ask(_body(structured_outputs={"regex": "a", "whitespace_pattern": " "}))
    assert caught.value.param == "structured_outputs.whitespace_pattern"


@pytest.mark.parametrize("kind", ["text", "json_schema", "grammar"])
def test_a_field_of_another_type_of_format_is_refused(kind: str) -> None:
    wanted = {"type": kind, "schema": OBJECT}
    with pytest.raises(RequestError) as caught:
        read_chat_ask(_body(response_format=wanted))
    assert caught.value.param == "response_format.schema"
