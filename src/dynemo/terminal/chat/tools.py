"""The tools of a chat: their definitions from a file."""

import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import DecodeError

from dynemo.api.openai.tools import tools_of
from dynemo.errors import RequestError, UsageError
from dynemo.foreign import decode_json
from dynemo.limits import BODY_BYTES, TOOLS
from dynemo.messages.ask import Tool
from dynemo.spelling import quoted, shortened

#: The most characters of a description in the list of tools.
_DESCRIPTION = 200


def read_tools(name: str) -> list[Tool]:
    """Reads OpenAI's definitions of tools: a JSON list, or an object with the list as `tools`.

    Raises UsageError for a file that cannot be read, and RequestError for a wrong definition.
    """
    try:
        value: Any = decode_json(_read(Path(name).expanduser(), name), Any)
    except DecodeError as error:
        raise UsageError(f"{quoted(name)} is not valid JSON: {error}.") from None
    if isinstance(value, dict):
        value = value.get("tools")
    if not isinstance(value, list):
        raise UsageError(
            f'{quoted(name)} must hold a JSON list of tools, or an object with "tools".'
        )
    if not value:
        raise UsageError(f"{quoted(name)} holds no tools. /tools off removes the loaded ones.")
    if len(value) > TOOLS:
        raise UsageError(f"{quoted(name)} holds more than {TOOLS:,} tools. Load fewer.")
    for index, tool in enumerate(value):
        if not isinstance(tool, dict):
            place = f"tools[{index}]"
            raise RequestError(f"Invalid '{place}': it must be an object.", param=place)
    return tools_of(value)


def _read(path: Path, name: str) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(f"{quoted(name)} is not a file.")
        with path.open("rb") as file:
            data = file.read(BODY_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{quoted(name)} cannot be read: {reason}.") from None
    if len(data) > BODY_BYTES:
        raise UsageError(f"{quoted(name)} is longer than {BODY_BYTES:,} bytes.")
    return data


def describe(tools: Sequence[Tool]) -> str:
    """Returns the list of tools that the chat prints."""
    if not tools:
        return "There are no tools. /tools FILE loads them."
    width = max(len(tool.name) for tool in tools)
    return "\n".join(f"  {tool.name:<{width}}  {_description(tool)}".rstrip() for tool in tools)


def _description(tool: Tool) -> str:
    text = tool.definition["function"].get("description") or ""
    return shortened(" ".join(text.split()), _DESCRIPTION)
