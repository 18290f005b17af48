"""The parser of answers, on one format of each kind."""

import json

from dynemo.answer.formats.format import (
    CallArguments,
    CallStarted,
    Format,
    SaidReasoning,
    SaidText,
)
from dynemo.answer.formats.known.table import REASONINGS, TOOLS
from dynemo.answer.formats.parser import AnswerParser
from dynemo.messages.ask import Tool

_WEATHER = Tool("get_weather", {"type": "function", "function": {"name": "get_weather"}})
_QWEN = Format(REASONINGS["think"].format, TOOLS["hermes"].format)
_CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'


def test_text_reasoning_and_a_call_are_told_apart() -> None:
    parser = AnswerParser(_QWEN, [_WEATHER])
    parts = parser.feed(f"<think>\nHm.\n</think>\n\nI look.\n{_CALL}") + parser.end()
    assert parts == [
        SaidReasoning("Hm."),
        SaidText("I look."),
        CallStarted(None, "get_weather"),
        CallArguments('{"city": "Rome"}'),
    ]


def test_nothing_is_parsed_that_nobody_wants() -> None:
    parser = AnswerParser(_QWEN, [_WEATHER], wants_calls=False, wants_reasoning=False)
    assert parser.feed(_CALL) == [SaidText(_CALL)]
    assert parser.end() == []


def test_an_unknown_tool_is_no_call() -> None:
    text = _CALL.replace("get_weather", "get_time")
    parser = AnswerParser(_QWEN, [_WEATHER])
    assert parser.feed(text) + parser.end() == [SaidText(text)]


def test_a_name_may_start_content() -> None:
    format = Format(tools=TOOLS["functionary_v32"].format)
    parser = AnswerParser(format, [_WEATHER])
    parts = parser.feed('all\nI look.>>>get_weather\n{"city": "Rome"}') + parser.end()
    assert parts == [
        SaidText("I look."),
        CallStarted(None, "get_weather"),
        CallArguments('{"city": "Rome"}'),
    ]


def test_a_call_without_a_name_is_content() -> None:
    for name, text in {
        "function_tag": "<function=>{}</function>",
        "kimi": "<|tool_call_begin|><|tool_call_argument_begin|>{}",
        "mistral": "[TOOL_CALLS][ARGS]{}",
        "hermes": '<tool_call>{"name": "", "arguments": {}}</tool_call>',
        "qwen_xml": "Write <tool_call></tool_call> around it.",
    }.items():
        parser = AnswerParser(Format(tools=TOOLS[name].format), [_WEATHER])
        assert parser.feed(text) + parser.end() == [SaidText(text)]


def test_ids_are_the_models_own() -> None:
    cases = {
        "kimi": ("<|tool_call_begin|>functions.get_weather:3<|tool_call_argument_begin|>{}", ":3"),
        "mistral": ("[TOOL_CALLS]get_weather[CALL_ID]abc[ARGS]{}", "abc"),
        "solar": ("<|tool_call:begin|>x1<|tool_call:name|>get_weather<|tool_call:args|>{}", "x1"),
        "hermes": ('<tool_call>{"name": "get_weather", "arguments": {}, "id": "c9"}', "c9"),
    }
    for name, (text, end) in cases.items():
        parser = AnswerParser(Format(tools=TOOLS[name].format), [_WEATHER])
        started = (parser.feed(text) + parser.end())[0]
        assert isinstance(started, CallStarted)
        assert (started.id or "").endswith(end)


def test_long_arguments_are_sent_as_they_come() -> None:
    start = '<tool_call>{"name": "get_weather", "arguments": {"text": "'
    parser = AnswerParser(_QWEN, [_WEATHER])
    assert parser.feed(start + "a" * 100) == []
    parts = parser.feed("b" * 500)
    assert parts[0] == CallStarted(None, "get_weather")
    assert parser.feed("ccc") == [CallArguments("ccc")]
    assert parser.end() == []


def test_a_call_can_be_sent_at_its_name() -> None:
    parser = AnswerParser(_QWEN, [_WEATHER], held=0)
    assert parser.feed('<tool_call>{"name": "get_weather", "arg') == []
    parts = parser.feed('uments": {')
    assert parts == [CallStarted(None, "get_weather"), CallArguments("{")]


def test_types_come_from_the_schema() -> None:
    schema = {
        "zip": {"type": "string"},
        "days": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "any": {},
        "box": {"$ref": "#/$defs/box"},
        "both": {"type": ["string", "integer"]},
    }
    parameters = {"properties": schema, "$defs": {"box": {"type": "object"}}}
    tool = Tool("f", {"function": {"name": "f", "parameters": parameters}})
    values = {"zip": "02134", "days": "None", "any": "007", "box": "{'a': [1, True]}"}
    text = "<tool_call><function=f>" + "".join(
        f"<parameter={key}>\n{value}\n</parameter>" for key, value in values.items()
    )
    parser = AnswerParser(Format(tools=TOOLS["qwen_xml"].format), [tool])
    text += "<parameter=both>12a</parameter></function></tool_call>"
    parts = parser.feed(text) + parser.end()
    arguments = "".join(part.text for part in parts if isinstance(part, CallArguments))
    expected = {"zip": "02134", "days": None, "any": "007", "box": {"a": [1, True]}, "both": "12a"}
    assert json.loads(arguments) == expected
