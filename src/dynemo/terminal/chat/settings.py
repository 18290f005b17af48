"""The settings of a chat's requests, as `/set` changes them: by the API's names and ranges."""

import msgspec
from msgspec import structs

from dynemo.api.openai.chat import read_chat_ask
from dynemo.errors import RequestError
from dynemo.messages.ask import SUBJECT, Ask

#: Fields of `Ask` that the chat sets itself, or that a person has no use for.
_NOT_SETTINGS = SUBJECT | {
    "model", "n", "tools", "guide", "add_generation_prompt", "continue_final_message",
}  # fmt: skip
#: Fields of `Ask` that a person may change.
NAMES = tuple(name for name in Ask.__struct_fields__ if name not in _NOT_SETTINGS)


def change(ask: Ask, name: str, text: str) -> Ask:
    """`ask` with the setting `name` as a person typed it: JSON, or else plain text.

    Raises RequestError for a name or a value that is none.
    """
    check_name(name)
    try:
        value = msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, RecursionError):
        value = text
    body = {"messages": [{"role": "user", "content": ""}], name: value}
    asked = read_chat_ask(msgspec.json.encode(body))
    return structs.replace(ask, **{name: getattr(asked, name)})


def check_name(name: str) -> None:
    """Raises RequestError for what is no setting."""
    if name not in NAMES:
        raise RequestError(f"There is no setting {name!r}; /set lists them.", param=name)
