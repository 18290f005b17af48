"""Recorded answers of nine families, from the package canitoolcall.

Each fixture is parsed whole, by characters and in random pieces. Its content and reasoning may
differ in white space at their ends, as the package allows.
"""

import json
import random
from functools import cache
from typing import Any

import pytest
from canitoolcall.fixtures import (
    Family,
    Fixture,
    load_families,
    load_fixtures,
)

from dynemo.answer.formats.choose import is_reasoning_open
from dynemo.answer.formats.format import Format
from dynemo.answer.formats.known.table import REASONINGS, TOOLS
from dynemo.messages.ask import Tool
from support.answers import Parsed, parse

_CUT_OFF = (
    "The answer is cut off inside its last call. The fixture drops the text of that call. Nothing "
    "that a model writes is dropped here, so it is content."
)

#: Fixtures that expect something else, and why.
_WRONG = {
    "deepseek/v32-truncated-second-parallel-call": _CUT_OFF,
    "deepseek/v4-truncated-second-parallel-call": _CUT_OFF,
    "deepseek/v41-truncated-second-parallel-call": _CUT_OFF,
    "gemma4/truncated-second-parallel-call": _CUT_OFF,
    "gpt-oss/harmony-truncated-in-header": _CUT_OFF,
    "mistral/v13think-stop-at-open-marker": _CUT_OFF,
    "qwen3-hermes/truncated-second-parallel-call": _CUT_OFF,
    "qwen3-xml/q38-truncated-at-tool-call-open": _CUT_OFF,
    "gpt-oss/llamacpp-builtin-python-recipient": (
        "The model sends code to a tool that the request does not have. The fixture drops the "
        "code; here it is content."
    ),
    "kimi/k2i-vllm-noise-between-markers": (
        "Text stands between the marks of a section and of its call. The fixture drops the text; "
        "here it is content."
    ),
    "llama/l4-truncated-missing-close-bracket": (
        "Of two calls the second is cut off. The fixture expects none, against the package's own "
        "rule that a first, complete call is kept."
    ),
}

_FORMATS = {
    "qwen3-hermes": ("think", "hermes"),
    "qwen3-xml": ("think", "qwen_xml"),
    "glm": ("think", "glm"),
    "gemma4": ("gemma", "gemma"),
    "gpt-oss": ("harmony", "harmony"),
    "mistral": ("mistral", "mistral"),
    "kimi": ("kimi", "kimi"),
    "llama": ("", "llama3"),
    "deepseek": ("think", "deepseek"),
}
_BY_MODEL = {
    "Kimi-K3": ("kimi_k3", "kimi_k3"),
    "Llama-4": ("", "llama4"),
    "DeepSeek-V3.2": ("think", "deepseek_v32"),
    "DeepSeek-V4-": ("think", "deepseek_v4"),
    "DeepSeek-V4.1": ("think", "deepseek_v41"),
}


@cache
def _all() -> dict[str, Fixture]:
    return {fixture.id: fixture for fixture in load_fixtures()}


@cache
def _families() -> dict[str, Family]:
    return load_families()


def _format(fixture: Fixture) -> Format:
    model = fixture.models[0]
    names = next((names for part, names in _BY_MODEL.items() if part in model), None)
    reasoning, tools = names or _FORMATS[fixture.family]
    return Format(REASONINGS[reasoning].format if reasoning else None, TOOLS[tools].format)


def _prompt(fixture: Fixture) -> str:
    if fixture.generation_prompt is not None:
        return fixture.generation_prompt
    models = _families()[fixture.family].reference_models
    return next(
        model.default_generation_prompt or "" for model in models if model.repo == fixture.models[0]
    )


def _parsed(fixture: Fixture) -> Parsed:
    """Parses a fixture, in the same way however it is cut."""
    format, text = _format(fixture), fixture.raw_output
    tools = [Tool(each["function"]["name"], dict(each)) for each in fixture.tools]
    is_open = is_reasoning_open(format, _prompt(fixture))
    whole = parse(format, tools, [text], reasoning_open=is_open)
    assert parse(format, tools, text, reasoning_open=is_open) == whole
    for seed in range(3):
        chance = random.Random(seed)
        pieces, at = [], 0
        while at < len(text):
            size = chance.randint(1, 12)
            pieces.append(text[at : at + size])
            at += size
        assert parse(format, tools, pieces, reasoning_open=is_open) == whole
    return whole


def _calls(said: Parsed) -> list[tuple[str, Any]]:
    return [(call.name, json.loads(call.arguments)) for call in said.calls]


def _is_as_expected(fixture: Fixture, said: Parsed) -> bool:
    expected = fixture.expected
    if expected is None:
        return not said.calls
    calls = [(call.name, dict(call.arguments)) for call in expected.tool_calls]
    return (
        _calls(said) == calls
        and said.content.strip() == (expected.content or "").strip()
        and said.reasoning.strip() == (expected.reasoning_content or "").strip()
    )


def test_all_fixtures_are_here() -> None:
    assert len(_all()) >= 469


@pytest.mark.parametrize("family", sorted(_FORMATS))
def test_fixtures_parse_as_they_expect(family: str) -> None:
    fixtures = [fixture for fixture in _all().values() if fixture.family == family]
    failed = {fixture.id for fixture in fixtures if not _is_as_expected(fixture, _parsed(fixture))}
    assert failed == {id for id in _WRONG if id.startswith(f"{family}/")}
