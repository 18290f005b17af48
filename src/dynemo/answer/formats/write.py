"""Writes a call as a model with a format would write it, and tells a model how to do so.

This is for models whose chat template shows no tools. `--tool-format` names their format.
"""

from collections.abc import Sequence
from json import dumps
from typing import Any

from dynemo.answer.formats.format import Tag, ToolFormat
from dynemo.foreign import decode_any_json
from dynemo.messages.ask import Tool

_PROMPT = """You can call these tools. Each line is the definition of one:
{tools}

To call a tool, write its name and its arguments in the form of this example:
{example}
You can write several calls, one after another. Write nothing after them: the next message has their
results."""

_EXAMPLE = ("example_tool", {"first_parameter": "a text", "second_parameter": 2})


def tools_prompt(format: ToolFormat, tools: Sequence[Tool]) -> str:
    """Returns a system message that tells a model about its tools, and how to call them."""
    listed = "\n".join(dumps(tool.definition, ensure_ascii=False) for tool in tools)
    name, arguments = _EXAMPLE
    example = write_call(format, name, arguments)
    return _PROMPT.replace("{example}", example, 1).replace("{tools}", listed, 1)


def call_text(format: ToolFormat, name: str, arguments: str) -> str:
    """Returns the text of a call whose arguments are JSON, or text that a model meant as such."""
    try:
        values = decode_any_json(arguments or "{}")
    except ValueError:
        values = None
    if isinstance(values, dict):
        return write_call(format, name, values)
    return f"{name}: {arguments}"


def write_call(format: ToolFormat, name: str, arguments: dict[str, Any]) -> str:
    """Returns the text of a call."""
    match format.syntax:
        case "json":
            return _object(format, name, arguments)
        case "named":
            return _named(format, name, arguments)
        case "xml":
            return _xml(format, name, arguments)
        case "pairs":
            key_tag, tag = format.key_tag, format.value_tag
            pairs = "".join(
                f"{key_tag.open}{key}{key_tag.close}\n{tag.open}{_plain(value)}{tag.close}\n"
                for key, value in arguments.items()
            )
            return f"{format.opens[0]}{name}\n{pairs}{format.closes[0]}"
        case "python":
            inner = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
            return f"{_first(format.opens)}[{name}({inner})]{_first(format.closes)}"
        case "braces":
            return f"{format.opens[0]}{name}{_braces(format, arguments)}{format.closes[0]}"
        case "harmony":
            header = f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>"
            return f"{header}{_json(arguments)}<|call|>"


def _object(format: ToolFormat, name: str, arguments: dict[str, Any]) -> str:
    call = {format.name_keys[0]: name, format.argument_keys[0]: arguments}
    text = _json({name: arguments} if format.is_name_key else call)
    if format.is_list or format.is_name_key:
        text = f"[{text}]"
    line = "\n" if format.has_lines else ""
    open, close = _first(format.opens) if not format.bare else "", _first(format.closes)
    return f"{open}{line}{text}{line}{close}" if open else text


def _named(format: ToolFormat, name: str, arguments: dict[str, Any]) -> str:
    separator = format.separators[0]
    if format.fence:
        text = f"function{separator}{name}\n{format.fence}\n{_json(arguments)}\n```"
    elif format.has_index:
        text = f"{_first(format.prefixes)}{name}:0{separator}{_json(arguments)}"
    elif format.is_id_first:
        text = f"0{format.id_mark}{name}{separator}{_json(arguments)}"
    else:
        text = f"{name}{separator}{_json(arguments)}"
    ends = format.closes[:2] if format.sections else format.closes[:1]
    return f"{_first(format.sections)}{_first(format.opens)}{text}{''.join(ends)}"


def _xml(format: ToolFormat, name: str, arguments: dict[str, Any]) -> str:
    call, tag, joint = format.call_tag, format.value_tag, format.joint
    line = "\n" if format.has_lines else ""
    values = "".join(
        f"{opening_tag(tag, key, _type(value))}{line}{_plain(value)}{line}{tag.close}{joint}"
        for key, value in arguments.items()
    )
    text = f"{opening_tag(call, name)}{joint}{values}{call.close}"
    ends = [joint + close for close in format.closes]
    return f"{_first(format.sections)}{joint}{_first(format.opens)}{text}{''.join(ends)}"


def opening_tag(tag: Tag, name: str, type: str = "") -> str:
    """Returns an opening tag. `type` is the JSON type of its value; empty for a call."""
    attributes = tag.attributes
    if type:
        attributes = attributes.replace("{is_text}", "true" if type == "string" else "false")
        attributes = attributes.replace("{type}", type)
    return f"{tag.open}{name}{tag.name_end}{attributes}{tag.end}"


def _braces(format: ToolFormat, value: Any) -> str:
    if isinstance(value, dict):
        inner = ",".join(f"{key}:{_braces(format, item)}" for key, item in value.items())
        return f"{{{inner}}}"
    if isinstance(value, list):
        return f"[{','.join(_braces(format, item) for item in value)}]"
    return f"{format.quote}{value}{format.quote}" if isinstance(value, str) else _json(value)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def _type(value: Any) -> str:
    match value:
        case str():
            return "string"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case list():
            return "array"
        case None:
            return "null"
        case _:
            return "object"


def _json(value: Any) -> str:
    return dumps(value, ensure_ascii=False)


def _first(texts: tuple[str, ...]) -> str:
    return texts[0] if texts else ""
