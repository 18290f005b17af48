"""The grammar of a forced call: whatever it allows is read as calls whose arguments fit."""

import json
import random

import pytest
from llguidance import LLMatcher, LLTokenizer

from dynemo.answer.formats.forced import forced_call_guide
from dynemo.answer.formats.format import Format, tool_marks
from dynemo.messages.ask import Tool
from support.answers import ParsedCall, formats, parse, tool

_FORMATS = formats()
_WEATHER = tool("get_weather", city="string", days="integer", on="boolean")
_WEATHER.definition["function"]["parameters"]["required"] = ["city", "days"]
_TOOLS = [_WEATHER, tool("add", unit={"type": "string", "enum": ["kg", "lb"]}, list="array")]
_BYTES = LLTokenizer("byte")


def _written(format: Format, *, is_parallel: bool, seed: int) -> str:
    """Returns a random answer that the grammar allows."""
    guide = forced_call_guide(format, _TOOLS, is_parallel=is_parallel)
    assert guide is not None
    assert guide.kind == "lark"
    matcher = LLMatcher(_BYTES, "%llguidance {}\n" + guide.text)
    assert not matcher.get_error()
    assert format.tools is not None
    chance = random.Random(seed)
    marks = [*tool_marks(format.tools), "\n" + format.tools.value_tag.close + "\n"]
    texts = [
        *marks,
        *'"}],:)( \n\\',
        "a",
        "é",
        "1",
        "true",
        "[1]",
        "get_weather",
        "add",
        "{",
        "u",
        "l",
        "kg",
        "lb",
    ]
    texts += [mark[at:] + end for mark in marks for at in range(len(mark)) for end in ("\n", "")]
    if format.tools.bare:
        texts.append("; ")
    written = b""
    for _ in range(3000):
        if matcher.is_stopped() or (matcher.is_accepting() and chance.random() < 0.5):
            return written.decode()
        forced = matcher.compute_ff_tokens()
        options = [_BYTES.tokenize_str(text) for text in chance.sample(texts, len(texts))]
        allowed = (each for each in options if matcher.validate_tokens(each) == len(each))
        tokens = forced or next(allowed, None)
        assert tokens is not None, written
        assert matcher.consume_tokens(tokens)
        written += bytes(token for token in tokens if token < 256)
    raise AssertionError(f"It does not end: {written!r}")


def _fits(call: ParsedCall) -> bool:
    arguments = json.loads(call.arguments)
    if call.name == "add":
        return arguments.get("unit", "kg") in ("kg", "lb") and isinstance(
            arguments.get("list", []), list
        )
    return isinstance(arguments["city"], str) and isinstance(arguments["days"], int)


@pytest.mark.parametrize("name", sorted(_FORMATS))
def test_all_that_the_grammar_allows_is_a_call(name: str) -> None:
    format = _FORMATS[name]
    for seed in range(6):
        text = _written(format, is_parallel=seed % 2 == 0, seed=seed)
        said = parse(format, _TOOLS, [text])
        assert said.calls, text
        assert not said.content.strip(), text
        assert all(_fits(call) for call in said.calls), text
        if seed % 2:
            assert len(said.calls) == 1


def test_marks_that_are_control_tokens_stand_by_their_ids() -> None:
    guide = forced_call_guide(_FORMATS["mistral"], _TOOLS, control_ids={"[TOOL_CALLS]": 5})
    assert guide is not None
    assert '<[5]> "get_weather[ARGS]"' in guide.text


def test_no_tools_have_no_grammar() -> None:
    assert forced_call_guide(_FORMATS["hermes"], []) is None
    assert forced_call_guide(Format(), [Tool("f", {})]) is None
