"""Parses answers in tests, and puts their parts together."""

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from dynemo.answer.formats.format import (
    CallArguments,
    CallStarted,
    Format,
    Part,
    SaidReasoning,
    SaidText,
)
from dynemo.answer.formats.known.table import REASONINGS, TOOLS
from dynemo.answer.formats.parser import AnswerParser
from dynemo.limits import HELD_CALL_CHARACTERS
from dynemo.messages.ask import Tool


class ParsedCall(Struct):
    id: str | None
    name: str
    arguments: str


class Parsed(Struct):
    content: str
    reasoning: str
    calls: list[ParsedCall]


def tool(name: str, **properties: Any) -> Tool:
    """A tool; each of its parameters has the given type or schema."""
    schemas = {
        key: {"type": value} if isinstance(value, str) else value
        for key, value in properties.items()
    }
    parameters = {"type": "object", "properties": schemas}
    function = {"name": name, "description": "A tool", "parameters": parameters}
    return Tool(name, {"type": "function", "function": function})


def parse(
    format: Format,
    tools: Sequence[Tool],
    pieces: Iterable[str],
    *,
    reasoning_open: bool = False,
    held: int = HELD_CALL_CHARACTERS,
) -> Parsed:
    parser = AnswerParser(format, tools, reasoning_open=reasoning_open, held=held)
    parts: list[Part] = []
    for piece in pieces:
        parts += parser.feed(piece)
    return joined([*parts, *parser.end()])


def joined(parts: Iterable[Part]) -> Parsed:
    said = Parsed("", "", [])
    for part in parts:
        match part:
            case SaidText(text):
                said.content += text
            case SaidReasoning(text):
                said.reasoning += text
            case CallStarted(id, name):
                said.calls.append(ParsedCall(id, name, ""))
            case CallArguments(text):
                said.calls[-1].arguments += text
    return said


def formats() -> dict[str, Format]:
    """Every known format of tools, with the reasoning that its models have."""
    own = {"harmony": "harmony", "kimi": "kimi", "kimi_k3": "kimi_k3", "gemma": "gemma"}
    own |= {"cohere": "cohere", "mistral": "mistral", "solar": "solar", "seed": "seed"}
    return {
        name: Format(REASONINGS[own.get(name, "think")].format, row.format)
        for name, row in TOOLS.items()
    }
