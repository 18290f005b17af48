"""Tools for a model whose chat template has none: the conversation tells it about them.

The user has named the format with --tool-format. The tools stand in the system message, calls of
the history in the assistant's text, and their results in the user's.
"""

from collections.abc import Iterable, Iterator, Sequence

from msgspec import structs

from dynemo.answer.formats.format import ToolFormat
from dynemo.answer.formats.write import call_text, tools_prompt
from dynemo.messages.ask import Part, TextPart, Tool, ToolCallPart, ToolResultPart, Turn, text_turn


def told_turns(
    turns: Sequence[Turn],
    tools: Sequence[Tool],
    format: ToolFormat,
    *,
    has_system: bool,
) -> list[Turn]:
    """Returns the conversation with the tools in its system message.

    `has_system`: the template takes one. Otherwise the first user turn has the tools.
    """
    if not tools:
        return list(turns)
    return _with_text(list(turns), tools_prompt(format, tools), has_system=has_system)


def without_calls(turns: Sequence[Turn], format: ToolFormat) -> list[Turn]:
    """Returns the conversation with calls and results as text."""
    return list(_joined(_plain(turn, format) for turn in turns))


def _with_text(turns: list[Turn], text: str, *, has_system: bool) -> list[Turn]:
    role = "system" if has_system else "user"
    if turns and turns[0].role == role:
        own = "\n\n".join(turns[0].texts)
        parts = (own, text) if has_system else (text, own)
        return [text_turn(role, "\n\n".join(filter(None, parts))), *turns[1:]]
    return [text_turn(role, text), *turns]


def _plain(turn: Turn, format: ToolFormat) -> Turn:
    results = [part for part in turn.parts if isinstance(part, ToolResultPart)]
    if results:
        return Turn("user", tuple(TextPart(_result(part)) for part in results))
    calls = [part for part in turn.parts if isinstance(part, ToolCallPart)]
    if not calls:
        return turn
    others: list[Part] = [part for part in turn.parts if not isinstance(part, ToolCallPart)]
    text = format.joint.join(_call(call, format) for call in calls)
    return structs.replace(turn, parts=(*others, TextPart(text)))


def _joined(turns: Iterable[Turn]) -> Iterator[Turn]:
    """Yields the turns, with user turns in a row as one: many templates want the roles in turn."""
    last: Turn | None = None
    for turn in turns:
        if last is not None and last.role == turn.role == "user":
            last = structs.replace(last, parts=(*last.parts, *turn.parts))
            continue
        if last is not None:
            yield last
        last = turn
    if last is not None:
        yield last


def _call(call: ToolCallPart, format: ToolFormat) -> str:
    return call_text(format, call.name, call.arguments)


def _result(part: ToolResultPart) -> str:
    of = f" of {part.name}" if part.name else ""
    return f"The result{of}:\n{part.text}"
