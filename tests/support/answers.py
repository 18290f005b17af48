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
    ToolFormat,
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


def write_call(format: ToolFormat, name: str, arguments: str, values: dict[str, str]) -> str:
    """Writes one call: `arguments` as JSON, and `values` as a format without quotes writes them."""
    match format.syntax:
        case "json":
            body = (
                f'{{"{name}": {arguments}}}'
                if format.is_name_key
                else _object(format, name, arguments)
            )
            opens, closes = format.opens[:1], format.closes[:1]
            return "".join(opens) + (f"[{body}]" if format.is_name_key else body) + "".join(closes)
        case "named":
            return _named(format, name, arguments)
        case "xml":
            call, value = format.call_tag, format.value_tag
            line = "\n" if format.has_lines else ""
            inner = "".join(
                f"{value.open}{key}{value.name_end}{value.end}{line}{text}{line}{value.close}\n"
                for key, text in values.items()
            )
            whole = f"{call.open}{name}{call.name_end}{call.end}\n{inner}{call.close}\n"
            return "".join(format.sections[:1]) + "\n" + whole + "".join(format.closes[-1:])
        case "pairs":
            inner = "".join(
                f"<arg_key>{key}</arg_key>\n<arg_value>{text}</arg_value>\n"
                for key, text in values.items()
            )
            return f"{format.opens[0]}{name}\n{inner}{format.closes[0]}"
        case "python":
            body = ", ".join(f"{key}={_python(text)}" for key, text in values.items())
            return f"{''.join(format.opens[:1])}[{name}({body})]{''.join(format.closes[:1])}"
        case "braces":
            quote = format.quote
            body = ",".join(
                f"{key}:{text if text.isdigit() else quote + text + quote}"
                for key, text in values.items()
            )
            return f"{format.opens[0]}{name}{{{body}}}{format.closes[0]}"
        case "harmony":
            return (
                f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>{arguments}"
                "<|call|>"
            )


def _object(format: ToolFormat, name: str, arguments: str) -> str:
    return f'{{"{format.name_keys[0]}": "{name}", "{format.argument_keys[0]}": {arguments}}}'


def _python(text: str) -> str:
    return text if text.isdigit() else repr(text)


def _named(format: ToolFormat, name: str, arguments: str) -> str:
    section, opens = "".join(format.sections[:1]), "".join(format.opens[:1])
    closes = "".join(format.closes)
    if format.fence:
        body = f"function{format.separators[0]}{name}\n```json\n{arguments}\n```"
    elif format.has_index:
        body = f"functions.{name}:0{format.separators[0]}{arguments}"
    elif format.is_id_first:
        body = f"id1{format.id_mark}{name}{format.separators[0]}{arguments}"
    else:
        body = f"{name}{format.separators[0]}{arguments}"
    return section + ("" if format.is_open else opens) + body + closes
