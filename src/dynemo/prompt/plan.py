"""Plans the prompt and the reading of the answer for tools and reasoning. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from dynemo.answer.formats.choose import is_reasoning_open
from dynemo.answer.formats.format import Format, needed_marks
from dynemo.answer.reader import AnswerPlan
from dynemo.errors import UnsupportedField
from dynemo.messages.ask import Ask, Tool, Turn
from dynemo.prompt.card.card import Card
from dynemo.prompt.control.texts import ControlTexts
from dynemo.prompt.render import RenderInput
from dynemo.prompt.told import told_turns, without_calls
from dynemo.spelling import quoted

#: The variables with which chat templates switch the model's thoughts on and off.
_SWITCHES = ("enable_thinking", "thinking")


def callable_tools(ask: Ask) -> list[Tool]:
    """The tools that the answer may call. The prompt shows no others."""
    tools, choice = ask.tools or [], ask.tool_choice
    if choice is None:
        return tools
    if choice.mode == "none":
        return []
    return [tool for tool in tools if not choice.names or tool.name in choice.names]


def check_plan(ask: Ask, card: Card) -> None:
    """Raises UnsupportedField for tools or an effort that the model does not know."""
    if callable_tools(ask) and card.format.tools is None:
        reason = card.format.why_no_tools or "its chat template has no tools"
        raise UnsupportedField(
            f"The model {quoted(card.name)} cannot call tools: {reason.rstrip('.')}. Start it with "
            "--tool-format NAME to name a format that it was trained with.",
            param="tools",
        )
    for name in ("reasoning_effort", "max_thinking_tokens"):
        if getattr(ask, name) is not None and card.format.reasoning is None:
            raise UnsupportedField(
                f"The model {quoted(card.name)} has no reasoning, so '{name}' is not "
                "supported with it.",
                param=name,
            )


def render_input(ask: Ask, card: Card, control: ControlTexts | None = None) -> RenderInput:
    """The part of an ask that determines its prompt."""
    tools, format = callable_tools(ask), card.format
    turns: Sequence[Turn] = ask.turns
    definitions = [tool.definition for tool in tools]
    if format.needs_prompt and format.tools is not None:
        has_system = card.template.probe.takes_system()
        if format.leaves_out_calls:
            turns = without_calls(turns, format.tools)
        turns = told_turns(turns, tools, format.tools, has_system=has_system)
        definitions = []
    return RenderInput(
        turns,
        tools=definitions or None,
        add_generation_prompt=ask.add_generation_prompt,
        continue_final_message=bool(ask.continue_final_message),
        kwargs=_template_kwargs(ask, format, definitions),
        control=control,
    )


def _template_kwargs(
    ask: Ask, format: Format, definitions: list[dict[str, Any]]
) -> Mapping[str, Any] | None:
    """The variables of the chat template: those of the request override the others."""
    more: dict[str, Any] = {}
    switch = ask.reasoning
    if switch is None and ask.reasoning_effort is not None:
        switch = True
    if switch is not None:
        more |= dict.fromkeys(_SWITCHES, switch)
    if ask.reasoning_effort is not None:
        more["reasoning_effort"] = ask.reasoning_effort
    if format.tools_variable and definitions:
        more[format.tools_variable] = definitions
    return {**more, **(ask.chat_template_kwargs or {})} if more else ask.chat_template_kwargs


def plan_answer(ask: Ask, card: Card, prompt: str) -> AnswerPlan | None:
    """How to read the answer; None if all of it is content."""
    tools = callable_tools(ask)
    reasoning = card.format.reasoning
    splits_reasoning = ask.splits_reasoning is not False
    if not tools and (reasoning is None or not splits_reasoning):
        return None
    return AnswerPlan(
        card.format,
        tuple(tools),
        is_reasoning_open=is_reasoning_open(card.format, prompt),
        splits_reasoning=splits_reasoning,
        is_parallel=ask.parallel_tool_calls is not False,
    )


def shown_tokens(plan: AnswerPlan, card: Card) -> dict[int, str]:
    """The control tokens that the answer's text must show, because they are marks."""
    needed = needed_marks(
        plan.format, wants_calls=bool(plan.tools), wants_reasoning=plan.splits_reasoning
    )
    return {token_id: text for token_id, text in card.marks.items() if text in needed}
