"""The tools of a chat request, in OpenAI's newer form and in its older one, to those of an ask.

A definition stays as it was sent, because chat templates print it.
"""

import re
from collections.abc import Sequence
from typing import Any, Literal

from msgspec import json

from dynemo.api.openai.tool_types import NamedFunction, ToolChoiceObject
from dynemo.api.openai.types import ChatRequest
from dynemo.errors import RequestError, UnsupportedField
from dynemo.foreign import is_deeper
from dynemo.limits import JSON_DEPTH, SHOWN_CHARACTERS, TOOL_BYTES, TOOL_NAME_CHARACTERS
from dynemo.messages.ask import Tool, ToolChoice
from dynemo.spelling import quoted, shortened, unknown

#: A name stands inside the marks of many formats, so it has no quotes, brackets or spaces.
_NAME = re.compile(r"[\w.:/-]+")
_SUGGESTED = 100  #: tools among which a near name is looked for


def read_tools(asked: ChatRequest) -> tuple[list[Tool] | None, ToolChoice | None]:
    """Raises RequestError that names the field."""
    if asked.functions is not None or asked.function_call is not None:
        return _older(asked)
    tools = tools_of(asked.tools or ())
    choice = None if asked.tool_choice is None else _choice(asked.tool_choice)
    _check_choice(choice, tools, "tool_choice", "tools")
    return tools or None, choice


def tools_of(definitions: Sequence[dict[str, Any]]) -> list[Tool]:
    """Raises RequestError that names the place."""
    tools = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(definitions)]
    _check_all(tools, "tools", "function.name")
    return tools


def is_older_form(asked: ChatRequest) -> bool:
    """Whether the client knows one `function_call` instead of `tool_calls`."""
    return bool(asked.functions)


def _older(asked: ChatRequest) -> tuple[list[Tool] | None, ToolChoice | None]:
    for name in ("tools", "tool_choice"):
        if getattr(asked, name):
            raise RequestError(
                f"'functions' and 'function_call' are the older form of '{name}'; use one form.",
                param=name,
            )
    tools = [
        _tool({"type": "function", "function": function}, f"functions[{i}]", "")
        for i, function in enumerate(asked.functions or ())
    ]
    _check_all(tools, "functions", "name")
    wanted = asked.function_call
    choice = None
    if isinstance(wanted, NamedFunction):
        choice = ToolChoice("required", (wanted.name,))
    elif wanted is not None:
        choice = ToolChoice(wanted)
    _check_choice(choice, tools, "function_call", "functions")
    return tools or None, choice


def _tool(definition: dict[str, Any], place: str, inner: str = ".function") -> Tool:
    if (kind := definition.get("type")) != "function":
        if not isinstance(kind, str):
            raise _invalid(f"{place}.type", "it must be 'function'")
        shown = quoted(shortened(kind, SHOWN_CHARACTERS))
        raise UnsupportedField(
            f"'{place}.type' is {shown}, but only tools of type 'function' are supported.",
            param=f"{place}.type",
        )
    function = definition.get("function")
    if not isinstance(function, dict):
        raise _invalid(f"{place}{inner}", "it must be an object with the function's name")
    place += inner
    name = function.get("name")
    if not isinstance(name, str) or len(name) > TOOL_NAME_CHARACTERS or not _NAME.fullmatch(name):
        raise _invalid(f"{place}.name", "it must be a name of letters, digits and any of _-.:/")
    description, strict = function.get("description"), function.get("strict")
    if description is not None and not isinstance(description, str):
        raise _invalid(f"{place}.description", "it must be a text")
    if strict is not None and not isinstance(strict, bool):
        raise _invalid(f"{place}.strict", "it must be true or false")
    _check_parameters(function.get("parameters"), f"{place}.parameters")
    if is_deeper(definition, JSON_DEPTH):
        raise _invalid(place, f"it may be nested {JSON_DEPTH} deep, and is deeper")
    return Tool(name, definition)


def _check_parameters(parameters: Any, place: str) -> None:
    if parameters is None:
        return
    if not isinstance(parameters, dict):
        raise _invalid(place, "it must be a JSON schema, which is an object")
    if parameters.get("type", "object") != "object":
        raise _invalid(place, "arguments are an object, so the schema's type must be 'object'")
    if not isinstance(parameters.get("properties", {}), dict):
        raise _invalid(f"{place}.properties", "it must be an object")


def _check_all(tools: Sequence[Tool], field: str, inner: str) -> None:
    seen: set[str] = set()
    for index, tool in enumerate(tools):
        if tool.name in seen:
            place = f"{field}[{index}].{inner}"
            raise _invalid(place, f"there is another tool with the name {quoted(tool.name)}")
        seen.add(tool.name)
    if sum(len(json.encode(tool.definition)) for tool in tools) > TOOL_BYTES:
        raise _invalid(field, f"all definitions together may have {TOOL_BYTES:,} bytes")


def _choice(choice: Literal["none", "auto", "required"] | ToolChoiceObject) -> ToolChoice:
    if not isinstance(choice, ToolChoiceObject):
        return ToolChoice(choice)
    if choice.type == "function":
        if choice.function is None or choice.allowed_tools is not None:
            raise _invalid("tool_choice", "with type 'function' it needs 'function' alone")
        return ToolChoice("required", (choice.function.name,))
    if choice.allowed_tools is None or choice.function is not None:
        raise _invalid("tool_choice", "with type 'allowed_tools' it needs 'allowed_tools' alone")
    allowed = choice.allowed_tools
    return ToolChoice(allowed.mode, tuple(tool.function.name for tool in allowed.tools))


def _check_choice(
    choice: ToolChoice | None, tools: Sequence[Tool], field: str, source: str
) -> None:
    if choice is None or (choice.mode != "required" and not choice.names):
        return
    if not tools:
        raise RequestError(
            f"Invalid value for '{field}': it is only allowed when '{source}' are specified.",
            param=field,
            detail="invalid_value",
        )
    known = [tool.name for tool in tools]
    for name in choice.names:
        if name not in known:
            shown = shortened(name, SHOWN_CHARACTERS)
            place, see = f" in '{field}'", f"name one of those in '{source}'."
            text = unknown("tool", shown, known[:_SUGGESTED], place=place, otherwise=see)
            raise RequestError(text, param=field, detail="invalid_value")


def _invalid(place: str, problem: str) -> RequestError:
    return RequestError(f"Invalid '{place}': {problem}.", param=place, detail="invalid_value")
