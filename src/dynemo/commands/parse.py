"""`dynemo-run parse`: the content, the reasoning and the tool calls in what a model wrote."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from msgspec import Struct, ValidationError, convert, to_builtins

from dynemo.answer.formats.choose import choose_format, is_reasoning_open
from dynemo.answer.formats.format import Format
from dynemo.answer.reader import AnswerPlan, AnswerReader
from dynemo.api.openai.tool_types import ToolDefinition
from dynemo.api.openai.tools import tools_of
from dynemo.api.openai.write import answer_message
from dynemo.commands.lines import write_lines
from dynemo.errors import RequestError
from dynemo.messages.answer import Finish, FinishPiece, Piece, TextPiece
from dynemo.messages.ask import Tool, text_turn
from dynemo.prompt.render import RenderInput, render_prompt
from dynemo.prompt.template import ChatTemplate


class _Answer(Struct, frozen=True):
    """A line of the file. A list of texts is a stream in its pieces."""

    text: str | list[str]
    tools: list[ToolDefinition] | None = None
    prompt: str | None = None  #: None: the one of a question without a history


def parse(
    template: ChatTemplate,
    source: str | Path | Iterable[bytes],
    out: TextIO,
    formats: tuple[str, str] = ("", ""),
) -> int:
    """Writes `{"pieces": [...], "message": {...}, "finish_reason": ...}` for each line.

    `formats` name the formats of tools and of reasoning; where one is empty, the template decides.
    Returns the number of wrong lines. Raises UsageError.
    """
    tools, reasoning = formats
    format = choose_format(template, tool_format=tools, reasoning_format=reasoning)

    def answer(value: Mapping[str, Any]) -> dict[str, object]:
        return _parsed(template, format, value)

    return write_lines(source, out, answer)


def _parsed(template: ChatTemplate, format: Format, value: Mapping[str, Any]) -> dict[str, object]:
    try:
        line = convert(dict(value), _Answer)
    except ValidationError as error:
        raise RequestError(f"The line is not an answer: {error}.") from None
    tools = tools_of(line.tools or ())
    if tools and format.tools is None:
        raise RequestError(f"The model cannot call tools: {format.why_no_tools.rstrip('.')}.")
    prompt = _prompt(template, tools) if line.prompt is None else line.prompt
    plan = AnswerPlan(format, tuple(tools), is_reasoning_open=is_reasoning_open(format, prompt))
    texts = [line.text] if isinstance(line.text, str) else line.text
    pieces = list(_pieces(plan, texts))
    message, reason = answer_message(pieces)
    return {
        "pieces": [to_builtins(piece) for piece in pieces],
        "message": to_builtins(message),
        "finish_reason": reason,
    }


def _pieces(plan: AnswerPlan, texts: Sequence[str]) -> Iterable[Piece]:
    reader = AnswerReader(0, plan, "", 0)
    for text in texts:
        yield from reader.read([TextPiece(0, text, 1)])
    yield from reader.read([FinishPiece(0, Finish("stop", 0, len(texts)))])


def _prompt(template: ChatTemplate, tools: Sequence[Tool]) -> str:
    definitions = [tool.definition for tool in tools] or None
    chat = RenderInput([text_turn("user", "Hello")], tools=definitions)
    return render_prompt(template, chat).text
