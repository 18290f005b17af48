"""The parser of answers, on one format of each kind."""

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
