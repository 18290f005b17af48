"""Chooses the format of a model's answers from its chat template.

Known marks in the template come first (`known/`). Else the format is inferred from how the
template renders a call (`infer.py`). Both are proven: a call that the template renders must parse
back to itself. Where it does not, tools are refused for the model.
"""

from msgspec import structs

from dynemo.answer.formats.format import Format, ReasoningFormat, ToolFormat, needed_marks
from dynemo.answer.formats.infer import infer_tools
from dynemo.answer.formats.known.table import REASONINGS, TOOLS
from dynemo.answer.formats.probe import CallProbe, Template, parses_back
from dynemo.errors import UsageError
from dynemo.spelling import unknown

_HOW = "Use --tool-format NAME to say how the model calls tools."
_NO_TOOLS = f"The model's chat template does not show tools to the model. {_HOW}"
_NO_CALLS = f"The model's chat template shows no known way to call tools. {_HOW}"
_NOT_PROVEN = f"A tool call that the model's chat template renders cannot be read back. {_HOW}"


def choose_format(
    template: Template, *, tool_format: str = "", reasoning_format: str = ""
) -> Format:
    """Returns how to read the answers of a model with this template.

    `tool_format` and `reasoning_format` are names of `known/table.py` from the user; `none` turns
    one off. It takes a few milliseconds, so keep the result. A template that cannot be rendered
    gives a format without tools.

    Raises UsageError for an unknown name.
    """
    text = "\n".join(template.sources.values())
    reasoning = _reasoning(text, reasoning_format)
    chosen = _tools(template, text, reasoning, tool_format)
    format = structs.replace(chosen, reasoning=reasoning)
    marks = needed_marks(format, wants_calls=True, wants_reasoning=True)
    return structs.replace(format, marks=marks)


def is_reasoning_open(format: Format, prompt: str) -> bool:
    """Whether the answer to this prompt starts inside a block of reasoning."""
    reasoning = format.reasoning
    if reasoning is None:
        return False
    end = prompt.rstrip()
    return any(end.endswith(mark.rstrip()) for mark in reasoning.opens)


def _reasoning(text: str, name: str) -> ReasoningFormat | None:
    if name == "none":
        return None
    if name:
        if name not in REASONINGS:
            raise UsageError(unknown("reasoning format", name, [*REASONINGS, "none"]))
        return REASONINGS[name].format
    for row in REASONINGS.values():
        if row.marks and all(mark in text for mark in row.marks):
            return row.format
    return None


def _tools(template: Template, text: str, reasoning: ReasoningFormat | None, name: str) -> Format:
    """Returns the format of tool calls, or why there is none."""
    if name == "none":
        return Format(why_no_tools="Tools are turned off with --tool-format none.")
    if name and name not in TOOLS:
        raise UsageError(unknown("tool format", name, [*TOOLS, "none"]))
    if not name and "tool" not in text:
        return Format(why_no_tools=_NO_TOOLS)  # most such templates: it saves the renderings
    probe = CallProbe(template)
    tools, why = (TOOLS[name].format, "") if name else _proven(probe, text, reasoning)
    if tools is None:
        return Format(why_no_tools=why)
    return Format(
        tools=tools,
        needs_prompt=not probe.shows_tools,
        leaves_out_calls=not probe.shows_tools and not probe.one,
        tools_variable=probe.variable if probe.shows_tools else "",
    )


def _proven(
    probe: CallProbe, text: str, reasoning: ReasoningFormat | None
) -> tuple[ToolFormat | None, str]:
    """Returns a format that reads what the template renders, or None and why there is none."""
    known = [row.format for row in TOOLS.values() if all(mark in text for mark in row.marks)]
    if not probe.one and not probe.hides_calls:  # the template leaves calls out
        if not probe.shows_tools:
            return None, _NO_TOOLS
        return (known[0], "") if known else (None, _NO_CALLS)
    for tools in known:
        if parses_back(Format(reasoning, tools), probe):
            return tools, ""
    inferred = infer_tools(probe)
    if inferred is not None and parses_back(Format(reasoning, inferred), probe):
        return inferred, ""
    return None, _NOT_PROVEN if known or inferred else _NO_CALLS
