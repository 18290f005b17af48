"""Plans the steps of an answer: thoughts, tool calls, and content under a guide. Pure.

`serving/thinking.py` and `serving/held_calls.py` take the steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from msgspec import structs

from dynemo.answer.formats.choose import is_reasoning_open
from dynemo.answer.formats.forced import forced_call_guide
from dynemo.answer.reader import AnswerPlan
from dynemo.answer.thoughts import HeldCalls, Thinking
from dynemo.limits import GUIDE_BYTES
from dynemo.messages.ask import Ask, Tool
from dynemo.messages.records import Instance
from dynemo.messages.request import Guide
from dynemo.prompt.card.card import Card
from dynemo.prompt.plan import callable_tools

#: In the format `harmony` the answer begins with this channel, and all before it are thoughts.
_FINAL = "<|channel|>final<|message|>"
_TO_TOOLS = (" to=functions.",)


@dataclass(frozen=True, slots=True)
class Steps:
    """None: the answer is one step in that respect."""

    thinking: Thinking | None = None  #: the thoughts that a guide or a budget ends
    held: HeldCalls | None = None  #: calls that must fit the schemas of their tools


def must_call(ask: Ask) -> bool:
    return ask.tool_choice is not None and ask.tool_choice.mode == "required"


def with_forced_call(ask: Ask, card: Card, instances: Sequence[Instance]) -> Ask:
    """The ask with a guide that forces a call, if it must call and an instance can follow it."""
    if not must_call(ask):
        return ask
    guide = _call_guide(ask, card, callable_tools(ask), instances)
    return ask if guide is None else structs.replace(ask, guide=guide)


def plan_steps(
    ask: Ask, card: Card, plan: AnswerPlan | None, prompt: str, instances: Sequence[Instance]
) -> Steps:
    thinking = _thinking(ask, card, plan, prompt)
    if plan is None or must_call(ask) or not any(map(_is_strict, plan.tools)):
        return Steps(thinking)
    guide = _call_guide(ask, card, plan.tools, instances)
    marks = _call_marks(plan)
    if guide is None or not marks:
        return Steps(thinking)
    reasoning = card.format.reasoning
    if reasoning is None:
        quoting = Thinking((), (), False)
    else:
        quoting = Thinking(reasoning.opens, reasoning.closes, plan.is_reasoning_open)
    return Steps(thinking, HeldCalls(marks, guide, quoting))


def with_certainty(plan: AnswerPlan | None, ask: Ask, steps: Steps) -> AnswerPlan | None:
    """The plan, which then knows whether a grammar writes the calls."""
    if plan is None or (steps.held is None and not (must_call(ask) and ask.guide is not None)):
        return plan
    return replace(plan, is_sure=True)


def _is_strict(tool: Tool) -> bool:
    function = tool.definition.get("function")
    return isinstance(function, dict) and function.get("strict") is True


def _call_guide(
    ask: Ask, card: Card, tools: Sequence[Tool], instances: Sequence[Instance]
) -> Guide | None:
    """The guide for calls of these tools; None if no instance can follow it."""
    is_one = must_call(ask) and ask.tool_choice is not None and len(ask.tool_choice.names) == 1
    guide = forced_call_guide(
        card.format,
        tools,
        is_parallel=ask.parallel_tool_calls is not False and not is_one,
        control_ids={text: token_id for token_id, text in card.marks.items()},
    )
    if guide is None or len(guide.text) > GUIDE_BYTES:
        return None
    can = any(guide.kind in instance.capabilities.guides for instance in instances)
    return guide if can else None


def _thinking(ask: Ask, card: Card, plan: AnswerPlan | None, prompt: str) -> Thinking | None:
    """Returns the thoughts and the calls that may stand before the content.

    None if it has to be content from its start, or if there is neither a guide nor a budget.
    """
    has_calls = plan is not None and bool(plan.tools) and not must_call(ask)
    calls = _call_marks(plan) if plan is not None and has_calls and ask.guide else ()
    reasoning = card.format.reasoning
    if reasoning is None:
        return Thinking((), (), False, calls=calls) if calls else None
    is_open = is_reasoning_open(card.format, prompt) if plan is None else plan.is_reasoning_open
    budget = ask.max_thinking_tokens
    if is_open and ask.reasoning is False:  # the template has no switch
        budget = 0
    if ask.guide is None and budget is None:
        return None
    if reasoning.is_channels:
        ending = _FINAL if budget == 0 else f"<|end|><|start|>assistant{_FINAL}"
        tools = _TO_TOOLS if has_calls else ()
        return Thinking((), (_FINAL,), True, budget, ending, tools, ends_at_calls=True)
    if not (is_open or card.opens_thoughts or calls):
        return None
    opens = reasoning.opens if card.opens_thoughts else ()
    ends_at_calls = reasoning.ends_at_calls
    return Thinking(opens, reasoning.closes, is_open, budget, "", calls, ends_at_calls)


def _call_marks(plan: AnswerPlan) -> tuple[str, ...]:
    """The marks with which the model begins a call."""
    tools = plan.format.tools
    if tools is None:
        return ()
    marks = (*tools.sections, *tools.opens, tools.call_tag.open)
    bare: list[str] = []
    if tools.bare == "{":  # without a mark, only the name of a tool tells a call from other JSON
        key = tools.name_keys[0]
        bare = [f'{{"{key}":{space}"{tool.name}"' for space in (" ", "") for tool in plan.tools]
    return tuple(mark for mark in (*marks, *bare) if mark)
