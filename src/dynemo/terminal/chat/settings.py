"""The settings of a chat's requests. `/set` changes them by the API's names and ranges."""

from typing import Any

import msgspec
from msgspec import structs

from dynemo.api.openai.chat import read_chat_ask
from dynemo.errors import RequestError
from dynemo.foreign import decode_json
from dynemo.messages.ask import SUBJECT, Ask
from dynemo.spelling import unknown

#: Fields of `Ask` that the chat sets itself, or that make no sense in a chat.
_NOT_SETTINGS = SUBJECT | {
    "model", "n", "tools", "tool_choice", "parallel_tool_calls", "guide", "logprobs",
    "prompt_logprobs", "stop_ids", "include_stop", "add_generation_prompt",
    "continue_final_message", "priority",
}  # fmt: skip
#: Fields of `Ask` that the user may change.
NAMES = tuple(name for name in Ask.__struct_fields__ if name not in _NOT_SETTINGS)


def change(ask: Ask, name: str, text: str) -> Ask:
    """Returns `ask` with a setting as the user typed it: JSON, or else plain text.

    Raises RequestError for an unknown name or an invalid value.
    """
    check_name(name)
    try:
        value: Any = decode_json(text, Any)
    except msgspec.DecodeError:
        value = text
    body = {"messages": [{"role": "user", "content": ""}], name: value}
    changed = read_chat_ask(msgspec.json.encode(body))
    return structs.replace(ask, **{name: getattr(changed, name)})


def check_name(name: str) -> None:
    """Raises RequestError for an unknown setting."""
    if name not in NAMES:
        message = unknown("setting", name, NAMES, otherwise="/set lists the settings.")
        raise RequestError(message, param=name)
