"""What clients send, brought into the shape that a model's chat template reads.

OpenAI's wire format and the templates disagree in three places: arguments of tool calls are JSON
text on the wire and objects in most templates, content may be a list of parts on the wire and is a
string in most templates, and a tool call's content is null on the wire and absent or empty in
templates.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dynemo.errors import RequestError, UnsupportedField
from dynemo.prompt.probe import TemplateProbe

Message = Mapping[str, Any]


def normalise(
    messages: Sequence[Message], traits: TemplateProbe, *, has_tools: bool = False
) -> list[dict[str, Any]]:
    """The messages as the template with these traits reads them. The input is left as it is.

    - Text parts stay a list where the template prints them as it prints a string; otherwise they
      are joined by newlines.
    - Arguments of tool calls that are the JSON text of an object become that object, unless the
      template wants the text. Text that is no JSON stays as it is.
    - An empty list of tool calls is dropped: templates ask whether the key is there.

    Raises RequestError for what is not a message, UnsupportedField for parts other than text.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        raise RequestError("messages must be a list of messages", param="messages")
    return [_message(i, message, traits, has_tools) for i, message in enumerate(messages)]


def fill_content(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """The messages with empty text where there is none, for templates that need some."""
    return [
        {**message, "content": ""} if message.get("content") is None else dict(message)
        for message in messages
    ]


def in_text(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """The messages with one text as each content, for an engine that reads them itself: of parts
    what `normalise` makes of them, and empty where there is none. Raises as `normalise` does."""
    return [{**message, "content": _whole(message.get("content"))} for message in messages]


def _whole(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(_text_of(part, "content") for part in content)


def _message(index: int, message: object, traits: TemplateProbe, has_tools: bool) -> dict[str, Any]:
    place = f"messages[{index}]"
    if not isinstance(message, Mapping):
        raise RequestError(f"{place} must be an object", param=place)
    role = message.get("role")
    if not isinstance(role, str):
        raise RequestError(f"{place} must have a 'role' that is a string", param=f"{place}.role")
    changed = dict(message)
    content = message.get("content")
    if isinstance(content, Sequence) and not isinstance(content, str):
        texts = [_text_of(part, f"{place}.content") for part in content]
        if traits.takes_parts(role, has_tools=has_tools):
            changed["content"] = [{"type": "text", "text": text} for text in texts]
        else:
            changed["content"] = "\n".join(texts)
    elif content is not None and not isinstance(content, str):
        raise RequestError(
            f"{place}.content must be a string or a list of text parts", param=f"{place}.content"
        )
    calls = message.get("tool_calls")
    if isinstance(calls, Sequence) and not isinstance(calls, str):
        changed["tool_calls"] = (
            _with_objects(calls) if traits.takes_argument_objects(has_tools=has_tools) else calls
        )
    if not calls:
        changed.pop("tool_calls", None)
    return changed


def _text_of(part: object, place: str) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise RequestError(f"{place} must be a list of parts that are objects", param=place)
    kind = part.get("type", "text")
    if kind not in ("text", "refusal"):
        raise UnsupportedField(
            f"{place} has a part of type {kind!r}; only text parts are supported", param=place
        )
    text = part.get(kind)
    if not isinstance(text, str):
        raise RequestError(f"{place} has a {kind} part without its {kind!r} string", param=place)
    return text


def _with_objects(calls: Sequence[Any]) -> list[Any]:
    return [_with_object(call) for call in calls]


def _with_object(call: Any) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        return call
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        return call
    try:
        parsed = json.loads(arguments) if arguments.strip() else {}
    except ValueError:
        # A model may have written it so. The template decides; refusing would end the chat.
        return call
    if not isinstance(parsed, dict | list):
        return call
    return {**call, "function": {**function, "arguments": parsed}}
