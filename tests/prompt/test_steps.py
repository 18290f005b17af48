"""Plans for tools and reasoning: the prompt, how the answer is read, and its steps."""

from typing import Any

import pytest

from dynemo.answer.formats.choose import choose_format
from dynemo.errors import UnsupportedField
from dynemo.messages.ask import Ask, Tool, ToolChoice, text_turn
from dynemo.messages.records import Capabilities, Instance
from dynemo.messages.request import Guide
from dynemo.prompt.card.card import Card, with_format
from dynemo.prompt.prepare import Prepared, prepare
from dynemo.prompt.template import ChatTemplate
from support.byte_tokenizer import Bytes
from support.records import make_instance

TEMPLATE = """\
{% for t in tools or [] %}{{ t | tojson }}
{% endfor %}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% for c in m.tool_calls or [] %}
<tool_call>
{{ {'name': c.function.name, 'arguments': c.function.arguments} | tojson }}
</tool_call>{% endfor %}{% endfor %}
{%- if add_generation_prompt %}[assistant]{% if THINK %}<think>{% endif %}{% endif %}
{#- <think></think> #}"""
GUIDE = Guide("json_schema", '{"type":"object"}')
FOLLOWS = make_instance(
    context_length=10_000, capabilities=Capabilities(guides=["json_schema", "lark"])
)
PLAIN = make_instance(context_length=10_000)


def card(think: str = "enable_thinking") -> Card:
    template = ChatTemplate(TEMPLATE.replace("THINK", think))
    made = Card("m", "llama", Bytes(), template, (0,), 10_000)
    return with_format(made, choose_format(template))


def tool(name: str, *, is_strict: bool = False) -> Tool:
    return Tool(name, {"type": "function", "function": {"name": name, "strict": is_strict}})


def prepared(model: Card | None = None, instance: Instance = FOLLOWS, **fields: Any) -> Prepared:
    ask = Ask(turns=[text_turn("user", "hi")], **fields)
    return prepare(ask, model or card(), [instance], "r")


A, B = tool("look_up"), tool("add_it")


def test_the_format_of_the_template() -> None:
    made = card()
    assert made.format.tools is not None
    assert made.format.tools.name == "hermes"
    assert made.format.reasoning is not None
    assert not made.opens_thoughts  # its prompt does, if it is asked for thoughts
    assert card("false").opens_thoughts


@pytest.mark.parametrize(
    ("choice", "shown"),
    [
        (None, ["look_up", "add_it"]),
        (ToolChoice("auto"), ["look_up", "add_it"]),
        (ToolChoice("required"), ["look_up", "add_it"]),
        (ToolChoice("auto", ("add_it",)), ["add_it"]),
        (ToolChoice("required", ("look_up",)), ["look_up"]),
        (ToolChoice("none"), []),
    ],
)
def test_the_prompt_shows_the_tools_that_may_be_called(
    choice: ToolChoice | None, shown: list[str]
) -> None:
    made = prepared(tools=[A, B], tool_choice=choice)
    prompt = made.requests[0].prompt
    assert [name for name in ("look_up", "add_it") if name in prompt] == shown
    assert made.plan is not None
    assert [each.name for each in made.plan.tools] == shown


def test_a_forced_call_has_a_guide_if_an_instance_can_follow_it() -> None:
    choice = ToolChoice("required", ("add_it",))
    [request] = prepared(tools=[A, B], tool_choice=choice).requests
    assert request.guide is not None
    assert request.guide.kind == "lark"
    assert "add_it" in request.guide.text
    assert "look_up" not in request.guide.text
    plan = prepared(tools=[A, B], tool_choice=choice).plan
    assert plan is not None
    assert plan.is_sure
    assert prepared(instance=PLAIN, tools=[A, B], tool_choice=choice).requests[0].guide is None


def test_strict_calls_are_held() -> None:
    strict = tool("add_it", is_strict=True)
    held = prepared(tools=[A, strict]).steps.held
    assert held is not None
    assert "<tool_call>" in held.marks
    assert held.guide.kind == "lark"
    plan = prepared(tools=[A, strict]).plan
    assert plan is not None
    assert plan.is_sure
    free = prepared(tools=[A])
    assert free.steps.held is None
    assert free.plan is not None
    assert not free.plan.is_sure
    assert prepared(instance=PLAIN, tools=[strict]).steps.held is None
    assert prepared(tools=[strict], tool_choice=ToolChoice("required")).steps.held is None


def test_a_guide_waits_for_thoughts_that_are_open() -> None:
    closed = prepared(guide=GUIDE)
    assert closed.steps.thinking is None
    opened = prepared(guide=GUIDE, reasoning=True)
    assert opened.requests[0].prompt.endswith("<think>")
    assert opened.plan is not None
    assert opened.plan.is_reasoning_open
    assert opened.steps.thinking is not None
    assert opened.steps.thinking.is_open
    itself = prepared(card("false"), guide=GUIDE)
    assert itself.steps.thinking is not None
    assert itself.steps.thinking.opens == ("<think>",)


def test_a_call_may_stand_in_place_of_guided_content() -> None:
    thinking = prepared(guide=GUIDE, tools=[A]).steps.thinking
    assert thinking is not None
    assert "<tool_call>" in thinking.calls
    assert prepared(guide=GUIDE, tools=[A], tool_choice=ToolChoice("none")).steps.thinking is None


def test_a_budget_of_thoughts() -> None:
    assert prepared(reasoning=True).steps.thinking is None
    thinking = prepared(reasoning=True, max_thinking_tokens=5).steps.thinking
    assert thinking is not None
    assert thinking.budget == 5


def test_thoughts_that_the_template_cannot_switch_off_are_closed() -> None:
    model = card("true")
    assert prepared(model, reasoning=True).steps.thinking is None
    thinking = prepared(model, reasoning=False).steps.thinking
    assert thinking is not None
    assert thinking.budget == 0


def test_an_effort_asks_for_thoughts_and_the_client_s_variables_come_last() -> None:
    assert prepared(reasoning_effort="low").requests[0].prompt.endswith("<think>")
    kwargs = {"enable_thinking": False}
    made = prepared(reasoning_effort="low", chat_template_kwargs=kwargs)
    assert not made.requests[0].prompt.endswith("<think>")


def test_raw_reasoning_without_tools_needs_no_plan() -> None:
    assert prepared(reasoning=True).plan is not None
    assert prepared(reasoning=True, splits_reasoning=False).plan is None


def test_what_the_model_does_not_know_is_refused_by_name() -> None:
    template = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}")
    bare = Card("m", "llama", Bytes(), template, (0,), 10_000)
    bare = with_format(bare, choose_format(template))
    unknown: dict[str, Any] = {"tools": [A], "reasoning_effort": "low", "max_thinking_tokens": 1}
    for name, value in unknown.items():
        with pytest.raises(UnsupportedField) as caught:
            prepared(bare, FOLLOWS, **{name: value})
        assert caught.value.param == name
    assert prepared(bare, tools=[A], tool_choice=ToolChoice("none")).plan is None
