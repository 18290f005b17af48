"""The settings of a chat's requests. `/set` changes them by the API's names and ranges."""

from typing import Any

import msgspec
from msgspec import structs

from dynemo.api.openai.chat import read_chat_ask
from dynemo.api.openai.dialect import OPENAI
from dynemo.api.openai.types import ChatRequest
from dynemo.errors import RequestError
from dynemo.foreign import decode_json
from dynemo.messages.ask import SUBJECT, Ask
from dynemo.spelling import quoted, unknown

#: Fields of `Ask` that the chat sets itself, or that make no sense in a chat.
_NOT_SETTINGS = SUBJECT | {
    "model", "n", "tools", "tool_choice", "parallel_tool_calls", "guide", "logprobs",
    "prompt_logprobs", "add_generation_prompt", "splits_reasoning",
    "continue_final_message", "priority",
}  # fmt: skip
_API_NAMES = OPENAI.operations["/v1/chat/completions"].fields
#: The field of `Ask` for each setting. A setting has the API's name. The API has no name for
#: `reasoning`, which is also a flag.
_FIELDS = {
    name: field
    for field in Ask.__struct_fields__
    if field not in _NOT_SETTINGS
    and ((name := _API_NAMES.get(field, field)) in ChatRequest.__struct_fields__)
} | {"reasoning": "reasoning"}
#: The settings that the user may change.
NAMES = tuple(_FIELDS)
_SWITCH = {"on": True, "true": True, "off": False, "false": False}
#: The effort that turns the reasoning off.
_NO_EFFORT = "none"


def change(ask: Ask, name: str, text: str) -> Ask:
    """Returns `ask` with a setting as the user typed it: JSON, or else plain text.

    Raises RequestError for an unknown name or an invalid value.
    """
    check_name(name)
    if name == "reasoning":
        if text.lower() not in _SWITCH:
            raise RequestError(f"'reasoning' is {quoted(text)}, but must be on or off.", param=name)
        return structs.replace(ask, reasoning=_SWITCH[text.lower()])
    try:
        value: Any = decode_json(text, Any)
    except msgspec.DecodeError:
        value = text
    body = {"messages": [{"role": "user", "content": ""}], name: value}
    return _copied(name, read_chat_ask(msgspec.json.encode(body)), ask)


def reset(ask: Ask, at_start: Ask, name: str) -> Ask:
    """Returns `ask` with the value that a setting had at the start.

    Raises RequestError for an unknown name.
    """
    check_name(name)
    return _copied(name, at_start, ask)


def shown_value(ask: Ask, name: str) -> str:
    """Returns the value of a setting as the chat shows it."""
    value = getattr(ask, _FIELDS[name])
    if name == "reasoning_effort" and ask.reasoning is False:
        value = _NO_EFFORT
    if name == "reasoning" and value is not None:
        return "on" if value else "off"
    return "the model's default" if value is None else msgspec.json.encode(value).decode()


def _copied(name: str, source: Ask, ask: Ask) -> Ask:
    # An effort also turns the reasoning on or off.
    fields = [_FIELDS[name], *(["reasoning"] if name == "reasoning_effort" else [])]
    return structs.replace(ask, **{field: getattr(source, field) for field in fields})


def check_name(name: str) -> None:
    """Raises RequestError for an unknown setting."""
    if name not in NAMES:
        message = unknown("setting", name, NAMES, otherwise="/set lists the settings.")
        raise RequestError(message, param=name)
