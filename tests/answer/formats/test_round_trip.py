"""The tool calls that a real template renders parse back to the same calls."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from dynemo.answer.formats.choose import choose_format
from dynemo.answer.formats.format import Format, needed_marks
from dynemo.answer.formats.probe import CallProbe, model_part
from dynemo.errors import RequestError
from dynemo.prompt.template import ChatTemplate
from support.answers import parse, tool

_FOLDER = Path(__file__).parents[2] / "fidelity" / "templates"
_NAMES = sorted(path.stem for path in _FOLDER.glob("*.jinja"))

_TOOL = tool(
    "get_weather", city="string", days="integer", where="object", list="array", on="boolean"
)
_OTHER = tool("add", a="number", note="string")
_TOOLS = [_TOOL, _OTHER]

_CASES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "one": [("get_weather", {"city": "Rome", "days": 3})],
    "two": [("get_weather", {"city": "Rome"}), ("add", {"a": 1.5, "note": "x"})],
    "same tool": [("get_weather", {"city": "Rome"}), ("get_weather", {"city": "Oslo"})],
    "no arguments": [("get_weather", {})],
    "unicode": [("get_weather", {"city": "Zürich — 東京 🌸 e\u0301"})],
    "quotes": [("get_weather", {"city": "a \"b\" 'c' \\ {d} [e] <f> & g, h: i\tj\nk"})],
    "text like values": [("get_weather", {"city": "02134"}), ("add", {"note": "true"})],
    "nested": [
        ("get_weather", {"where": {"a": {"b": [1, {"c": "d\n"}]}, "e": 1e-05}, "list": [[], {}]})
    ],
    "literals": [("get_weather", {"on": True, "days": -7, "list": [True, False, None, "None"]})],
}

_SINGLE = "The template refuses more than one call in an answer."

#: Templates that do not render some calls, and why.
_REFUSED = {
    (name, case): _SINGLE
    for name in ("meta-llama-Llama-3.1-8B-Instruct", "meta-llama-Llama-3.2-3B-Instruct")
    for case in ("two", "same tool", "text like values")
}

#: Templates that mention tools and render no call, and why.
_WITHOUT_CALLS = {
    "HuggingFaceTB-SmolLM3-3B": "It drops the calls of an answer, and shows no tools.",
    "Kimi-K2-Thinking": "It appends to a list, which the sandbox forbids.",
    "LFM2-8B-A1B": "It drops the calls of an answer.",
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": "It drops calls, and shows no tools.",
    "fireworks-ai-llama-3-firefunction-v2": "It needs the variables `functions` and `datetime`.",
    "ibm-granite-granite-3.3-2B-Instruct": "It drops the calls of an answer.",
    "trl-lfm2": "It drops the calls of an answer.",
}

_UNQUOTED = (
    "The format has no quotes or escapes, so a value that is a whole call, with all its closing "
    "marks in order, looks like the end of its own call."
)

#: Formats in which a value cannot be the text of a whole call.
_AMBIGUOUS = dict.fromkeys(("seed", "glm", "minimax", "qwen_xml", "gemma"), _UNQUOTED)


@cache
def _template(name: str) -> ChatTemplate:
    source = (_FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    return ChatTemplate(source, special_tokens={"bos_token": "<s>", "eos_token": "</s>"})


@cache
def _format(name: str) -> Format:
    return choose_format(_template(name))


def _with_calls() -> list[str]:
    return [name for name in _NAMES if _format(name).tools and CallProbe(_template(name)).one]


def _rendered(template: ChatTemplate, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Returns what the model would have written; empty if the template refuses the calls."""
    tools = [each.definition for each in _TOOLS]
    user = {"role": "user", "content": "Hello"}
    prompt = template.render([user], tools=tools)
    for content in ("", None):
        for is_text in (False, True):
            made = [
                {
                    "id": f"abcdefgh{number}",
                    "type": "function",
                    "function": {
                        "name": name,
                        "arguments": json.dumps(arguments) if is_text else arguments,
                    },
                }
                for number, (name, arguments) in enumerate(calls)
            ]
            answer = {"role": "assistant", "content": content, "tool_calls": made}
            try:
                text = template.render([user, answer], tools=tools, add_generation_prompt=False)
            except RequestError:
                continue
            return model_part(prompt, text)
    return ""


@pytest.mark.parametrize("case", _CASES)
def test_calls_parse_back_to_themselves(case: str) -> None:
    failed = {}
    for name in _with_calls():
        calls = _CASES[case]
        text = _rendered(_template(name), calls)
        said = parse(_format(name), _TOOLS, [text])
        try:
            parsed = [(call.name, json.loads(call.arguments)) for call in said.calls]
        except ValueError:
            parsed = []
        if parsed != calls:
            failed[name, case] = text
    assert set(failed) == {key for key in _REFUSED if key[1] == case}, failed


def test_each_template_with_tools_renders_a_call_or_is_listed() -> None:
    mute = set(_NAMES) - set(_with_calls())
    assert {name for name in mute if "tool" in _template(name).sources["default"]} == set(
        _WITHOUT_CALLS
    )


@pytest.mark.parametrize("name", _with_calls())
def test_values_may_hold_the_marks_of_the_format(name: str) -> None:
    format = _format(name)
    marks = needed_marks(format, wants_calls=True, wants_reasoning=True)
    for mark in marks:
        for value in (mark, f"\n{mark}\n", f"a {mark} b", f"{mark}x", f"x{mark}"):
            assert _reads_back(name, value), value


@pytest.mark.parametrize("name", _with_calls())
def test_a_value_may_be_a_whole_call(name: str) -> None:
    whole = _rendered(_template(name), _CASES["one"])
    tools = _format(name).tools
    assert tools is not None
    assert _reads_back(name, whole) == (tools.name not in _AMBIGUOUS)


def _reads_back(name: str, value: str) -> bool:
    calls = [("get_weather", {"city": value, "days": 3})]
    text = _rendered(_template(name), calls)
    said = parse(_format(name), _TOOLS, [text])
    return [(call.name, json.loads(call.arguments)) for call in said.calls] == calls
