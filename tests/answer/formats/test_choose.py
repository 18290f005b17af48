"""The choice of a format from a chat template: known marks, inference, proof and refusal."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from dynemo.answer.formats.choose import choose_format, is_reasoning_open
from dynemo.answer.formats.format import Format
from dynemo.answer.formats.infer import infer_tools
from dynemo.answer.formats.known.table import REASONINGS, TOOLS
from dynemo.answer.formats.probe import CallProbe, parses_back
from dynemo.errors import RequestError, UsageError
from dynemo.foreign import msgpack_decoder
from dynemo.prompt.errors import RenderTooLong
from dynemo.prompt.template import ChatTemplate
from support.answers import parse, tool

_FOLDER = Path(__file__).parents[2] / "fidelity" / "templates"

_CHOICES = {
    "Apertus-8B-Instruct": ("apertus", "apertus"),
    "Apriel-1.6-15b-Thinker-fixed": ("apriel", "tool_calls"),
    "ByteDance-Seed-OSS": ("seed", "seed"),
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": ("cohere", "cohere"),
    "GLM-4.7-Flash": ("think", "glm"),
    "HuggingFaceTB-SmolLM3-3B": ("think", None),
    "Kimi-K2-Thinking": ("kimi", "kimi"),
    "LFM2-8B-A1B": (None, "lfm2"),
    "MiMo-VL": (None, "hermes"),
    "MiniMax-M2": ("minimax", "minimax"),
    "Mistral-Small-3.2-24B-Instruct-2506": (None, "mistral"),
    "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": ("think", "qwen_xml"),
    "Qwen-Qwen2.5-7B-Instruct": (None, "hermes"),
    "Qwen-Qwen3-0.6B": ("think", "hermes"),
    "Qwen3-Coder": (None, "qwen_xml"),
    "Qwen3.5-4B": ("think", "qwen_xml"),
    "cz-chatml": (None, None),
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": ("think", None),
    "deepseek-ai-DeepSeek-V3.1": ("think", "deepseek"),
    "google-gemma-4-31B-it": ("gemma", "gemma"),
    "ibm-granite-granite-3.3-2B-Instruct": ("response", "granite"),
    "ibm-granite-granite-4.0": (None, "granite"),
    "meetkai-functionary-medium-v3.2": (None, "functionary_v32"),
    "meta-llama-Llama-3.2-3B-Instruct": (None, "llama3"),
    "microsoft-Phi-3.5-mini-instruct": (None, None),
    "mistralai-Ministral-3-14B-Reasoning-2512": ("mistral", "mistral"),
    "moonshotai-Kimi-K2": ("kimi", "kimi"),
    "upstage-Solar-Open-100B": ("solar", "solar"),
}

#: Templates whose format is only known, and not inferred from a call alone.
_NOT_INFERRED = {
    "Mistral-Small-3.2-24B-Instruct-2506",  # ids of calls within marks
    "google-gemma-4-31B-it",  # quotes of its own
    "google-gemma-4-31B-it-interleaved",
    "meetkai-functionary-medium-v3.2",  # its mark ends the prompt
    "moonshotai-Kimi-K2",  # numbers calls
    "trl-diffusion_gemma",
}


def _template(source: str) -> ChatTemplate:
    return ChatTemplate(source, special_tokens={"bos_token": "<s>", "eos_token": "</s>"})


def _read(name: str) -> ChatTemplate:
    return _template((_FOLDER / f"{name}.jinja").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", _CHOICES)
def test_the_format_of_a_real_template(name: str) -> None:
    format = choose_format(_read(name))
    reasoning, tools = _CHOICES[name]
    assert (format.reasoning.name if format.reasoning else None) == reasoning
    assert (format.tools.name if format.tools else None) == tools
    assert bool(format.why_no_tools) == (tools is None)


def test_a_format_travels() -> None:
    import msgspec

    format = choose_format(_read("Qwen3.5-4B"))
    assert msgpack_decoder(Format)(msgspec.msgpack.encode(format)) == format
    assert {"<think>", "</think>", "<tool_call>", "<parameter="} <= set(format.marks)


@pytest.mark.parametrize("path", sorted(_FOLDER.glob("*.jinja")), ids=lambda path: path.stem)
def test_the_format_is_inferred_from_a_call(path: Path) -> None:
    probe = CallProbe(_template(path.read_text(encoding="utf-8")))
    if not probe.one:
        return
    inferred = infer_tools(probe)
    is_proven = inferred is not None and parses_back(Format(tools=inferred), probe)
    assert is_proven == (path.stem not in _NOT_INFERRED)


_CHAT = """{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}
{%- for message in messages %}{{ '@' + message.role + ':' }}
{%- if message.tool_calls %}{% for call in message.tool_calls %}{% set f = call.function %}CALL
{%- endfor %}{% else %}{{ message.content }}{% endif %}{{ '\\n' }}{% endfor %}
{%- if add_generation_prompt %}@assistant:{% endif %}"""

_CALLS = {
    "object": "~~call~~{{ {'tool': f.name, 'input': f.arguments} | tojson }}~~end~~",
    "list": "[[CALL]] [{{ {'fn': f.name, 'args': f.arguments} | tojson }}] [[/CALL]]",
    "text arguments": "<c>{{ {'name': f.name, 'arguments': f.arguments | tojson} | tojson }}</c>",
    "name as key": "<do>{{ {f.name: f.arguments} | tojson }}</do>",
    "bare": "{{ {'name': f.name, 'parameters': f.arguments} | tojson }}",
    "named": "<#{{ f.name }}#>{{ f.arguments | tojson }}<##>",
    "function": "<run>{{ f.name }}({% for k, v in f.arguments.items() %}{{ k }}={{ v | tojson }}"
    "{{ '' if loop.last else ', ' }}{% endfor %})</run>",
    "tags": "<use tool={{ f.name }}>{% for k, v in f.arguments.items() %}<with {{ k }}>{{ v }}"
    "</with>{% endfor %}</use>",
    "attributes": '<inv n="{{ f.name }}">{% for k, v in f.arguments.items() %}<p n="{{ k }}">'
    "{{ v }}</p>{% endfor %}</inv>",
    "pairs": "<f>{{ f.name }}{% for k, v in f.arguments.items() %}<k>{{ k }}</k><v>{{ v }}</v>"
    "{% endfor %}</f>",
}


@pytest.mark.parametrize("kind", _CALLS)
def test_an_unknown_format_is_inferred_and_proven(kind: str) -> None:
    template = _template(_CHAT.replace("CALL", _CALLS[kind], 1).replace("CALL", "CALL"))
    format = choose_format(template)
    assert format.tools is not None, format.why_no_tools
    assert format.tools.name == "inferred"
    tools = [tool("look_up", word="string", number="integer")]
    arguments = {"word": "käse", "number": 7}
    call = {"id": "abcdefgh1", "type": "function"}
    call["function"] = {"name": "look_up", "arguments": arguments}  # type: ignore[assignment]
    said = {"role": "assistant", "content": "", "tool_calls": [call]}
    text = template.render([{"role": "user", "content": "x"}, said], add_generation_prompt=False)
    parsed = parse(format, tools, [text.partition("@assistant:")[2]])
    assert [(call.name, json.loads(call.arguments)) for call in parsed.calls] == [
        ("look_up", arguments)
    ]


def test_a_call_that_cannot_be_read_back_is_refused() -> None:
    secret = "{{ f.name | upper }}{{ f.arguments | length }}"
    format = choose_format(_template(_CHAT.replace("CALL", f"<tool_call>{secret}", 1)))
    assert format.tools is None
    assert "--tool-format" in format.why_no_tools


class _Broken:
    """A template whose renderings fail."""

    def __init__(self, error: Exception) -> None:
        self.sources = {"default": "<tool_call> tools <think> </think>"}
        self._error = error

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = True,
        kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        raise self._error


@pytest.mark.parametrize("error", [RequestError("No."), RenderTooLong("Slow.")])
def test_a_template_that_fails_has_no_tools(error: Exception) -> None:
    format = choose_format(_Broken(error))
    assert format.tools is None
    assert format.why_no_tools


def test_a_named_format_overrules_the_template() -> None:
    format = choose_format(_read("cz-chatml"), tool_format="hermes", reasoning_format="deepseek_r1")
    assert format.tools == TOOLS["hermes"].format
    assert format.reasoning == REASONINGS["deepseek_r1"].format
    assert format.needs_prompt
    assert choose_format(_read("Qwen3.5-4B"), tool_format="none").tools is None
    with pytest.raises(UsageError, match='"hermess"; did you mean "hermes"'):
        choose_format(_read("cz-chatml"), tool_format="hermess")


@pytest.mark.parametrize(
    ("name", "kwargs", "is_open"),
    [
        ("Qwen3.5-4B", {}, True),
        ("Qwen3.5-4B", {"enable_thinking": False}, False),
        ("Qwen-Qwen3-0.6B", {}, False),
        ("deepseek-ai-DeepSeek-V3.1", {"thinking": True}, True),
        ("deepseek-ai-DeepSeek-V3.1", {}, False),
        ("GLM-4.7-Flash", {}, True),
        ("MiniMax-M2", {}, True),
        ("Apriel-1.6-15b-Thinker-fixed", {}, True),
        ("google-gemma-4-31B-it", {}, False),
        ("CohereForAI-c4ai-command-r7b-12-2024-tool_use", {}, False),
        ("trl-nemotron_3_super", {}, True),
    ],
)
def test_the_prompt_tells_whether_reasoning_is_open(
    name: str, kwargs: dict[str, Any], is_open: bool
) -> None:
    template = _read(name)
    prompt = template.render([{"role": "user", "content": "Hello"}], kwargs=kwargs)
    assert is_reasoning_open(choose_format(template), prompt) == is_open
