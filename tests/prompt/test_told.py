"""Tools for a chat template that has none, in the format that the user has named."""

from pathlib import Path

import pytest

from dynemo.answer.formats.choose import choose_format
from dynemo.answer.formats.format import CallArguments, CallStarted, Format
from dynemo.answer.formats.known.table import TOOLS
from dynemo.answer.formats.parser import AnswerParser
from dynemo.answer.formats.write import tools_prompt, write_call
from dynemo.messages.ask import Tool, ToolCallPart, ToolResultPart, Turn, text_turn
from dynemo.prompt.normalise import template_messages
from dynemo.prompt.template import ChatTemplate
from dynemo.prompt.told import told_turns, without_calls

CHATML = ChatTemplate(
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
)
STRICT = ChatTemplate(
    "{% for m in messages %}"
    "{% if m.role not in ('user', 'assistant') %}{{ raise_exception('No ' + m.role) }}{% endif %}"
    "{% if (m.role == 'user') != loop.first and loop.index0 % 2 == 0 %}{% endif %}"
    "[{{ m.role }}]{{ m.content }}{% endfor %}"
)
TOOL = Tool("look", {"type": "function", "function": {"name": "look"}})
TURNS = [
    text_turn("user", "Look."),
    Turn("assistant", (ToolCallPart("look", '{"at": "</x>"}', "1"), ToolCallPart("look", "", "2"))),
    Turn("tool", (ToolResultPart("a tree", "1", "look"),)),
    Turn("tool", (ToolResultPart("a bird", "2"),)),
    text_turn("user", "And?"),
]


def named(template: ChatTemplate) -> Format:
    return choose_format(template, tool_format="hermes")


def test_without_a_name_tools_are_refused() -> None:
    found = choose_format(CHATML)
    assert found.tools is None
    assert "--tool-format" in found.why_no_tools


@pytest.mark.parametrize("name", TOOLS)
def test_any_format_can_be_named(name: str) -> None:
    format = choose_format(CHATML, tool_format=name)
    assert format.needs_prompt
    assert format.tools is not None
    plain = without_calls(TURNS, format.tools)
    told = told_turns(plain, [TOOL], format.tools, has_system=True)
    system, said = told[0].texts[0], told[2].texts[0]
    assert '{"name": "look"}' in system
    assert write_call(format.tools, "look", {"at": "</x>"}) in said


def test_a_template_that_knows_calls_keeps_them() -> None:
    path = Path(__file__).parents[1] / "fidelity" / "templates" / "deepseek-ai-DeepSeek-V3.1.jinja"
    format = choose_format(ChatTemplate(path.read_text(encoding="utf-8")))
    assert format.needs_prompt
    assert not format.leaves_out_calls
    assert format.tools is not None
    told = told_turns(TURNS, [TOOL], format.tools, has_system=True)
    assert told[1:] == TURNS
    assert "<｜tool▁call▁begin｜>" in told[0].texts[0]


def test_the_model_is_told_in_the_system_message() -> None:
    format = named(CHATML)
    assert format.needs_prompt
    assert format.tools is not None
    turns = [text_turn("system", "Be kind."), *TURNS[:1]]
    told = told_turns(turns, [TOOL], format.tools, has_system=CHATML.probe.takes_system())
    system = told[0].texts[0]
    assert system.startswith("Be kind.\n\n")
    assert '{"type": "function", "function": {"name": "look"}}' in system
    assert told[1:] == turns[1:]
    assert told_turns(TURNS[:1], [], format.tools, has_system=True) == TURNS[:1]


def test_a_template_without_system_messages() -> None:
    format = named(STRICT)
    assert format.tools is not None
    assert not STRICT.probe.takes_system()
    plain = without_calls(TURNS, format.tools)
    told = told_turns(plain, [TOOL], format.tools, has_system=False)
    assert [turn.role for turn in told] == ["user", "assistant", "user"]
    assert told[0].texts[0].endswith("Look.")
    text = STRICT.render(template_messages(told, STRICT.probe))
    assert "a tree" in text
    assert "a bird" in text
    assert text.endswith("And?")


def test_calls_of_the_history_read_back() -> None:
    format = named(CHATML)
    assert format.tools is not None
    told = without_calls(TURNS, format.tools)
    parser = AnswerParser(format, [TOOL])
    parts = [*parser.feed(told[1].texts[0]), *parser.end()]
    assert [part for part in parts if isinstance(part, CallStarted)] == [
        CallStarted(None, "look"),
        CallStarted(None, "look"),
    ]
    arguments = [part.text for part in parts if isinstance(part, CallArguments)]
    assert arguments == ['{"at": "</x>"}', "{}"]


def test_a_template_that_shows_calls_alone_gives_the_example() -> None:
    template = ChatTemplate(
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}"
        "{% for c in m.tool_calls or [] %}<tool_call>"
        "{{ {'name': c.function.name, 'arguments': c.function.arguments} | tojson }}</tool_call>"
        "{% endfor %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    format = choose_format(template)
    assert format.needs_prompt
    assert not format.leaves_out_calls
    assert format.tools is not None
    assert "<tool_call>" in tools_prompt(format.tools, [TOOL])
