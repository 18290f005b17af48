"""Turns to the messages that chat templates read: the one place where parts become dicts.

Templates and clients disagree in three places. Arguments of tool calls are JSON text on the wire
and objects in most templates. Content may be a list of parts on the wire and is a string in most
templates. A tool call's content is null on the wire and absent or empty in templates.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from dynemo.messages.ask import ReasoningPart, ToolCallPart, ToolResultPart, Turn
from dynemo.prompt.probe import TemplateProbe


def template_messages(
    turns: Sequence[Turn], probe: TemplateProbe, *, has_tools: bool = False
) -> list[dict[str, Any]]:
    """The conversation in the form that the probed template reads.

    - A list of text parts stays one if the template prints it as it prints a string; otherwise the
      parts are joined by newlines.
    - Arguments of tool calls that are the JSON text of an object become that object, unless the
      template wants the text. Text that is not JSON stays as it is.
    - A turn without text has no `content`, and one without calls no `tool_calls`: templates test
      whether the key exists.
    """
    wants_objects = any(
        isinstance(part, ToolCallPart) for turn in turns for part in turn.parts
    ) and probe.takes_argument_objects(has_tools=has_tools)
    messages = []
    for turn in turns:
        for message in _messages(turn, wants_objects=wants_objects):
            texts = message.get("content")
            if texts is not None:
                message["content"] = _content(turn, texts, probe, has_tools)
            messages.append(message)
    return messages


def plain_messages(turns: Iterable[Turn]) -> list[dict[str, Any]]:
    """The conversation with one text as each content, empty if there is none, and each call's
    arguments as text: what an engine that takes messages gets, and what a chat saves."""
    return [
        {**message, "content": "\n".join(message.get("content", ()))}
        for turn in turns
        for message in _messages(turn, wants_objects=False)
    ]


def fill_content(messages: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages with empty text as missing content, for templates that need some."""
    return [
        {**message, "content": ""} if message.get("content") is None else message
        for message in messages
    ]


def _messages(turn: Turn, *, wants_objects: bool) -> Iterator[dict[str, Any]]:
    """Each result of a tool is a message of its own. `content` is the list of its texts."""
    spoken: dict[str, Any] = {"role": turn.role}
    texts = turn.texts
    if texts:
        spoken["content"] = texts
    if turn.name is not None:
        spoken["name"] = turn.name
    calls = [_call(part, wants_objects) for part in turn.parts if isinstance(part, ToolCallPart)]
    if calls:
        spoken["tool_calls"] = calls
    reasoning = [part.text for part in turn.parts if isinstance(part, ReasoningPart)]
    if reasoning:
        spoken["reasoning_content"] = "".join(reasoning)
    results = [part for part in turn.parts if isinstance(part, ToolResultPart)]
    for result in results:
        yield _result(result)
    if not results or len(spoken) > 1:
        yield spoken


def _result(part: ToolResultPart) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "tool", "content": [part.text]}
    if part.name is not None:
        message["name"] = part.name
    if part.call_id is not None:
        message["tool_call_id"] = part.call_id
    return message


def _content(
    turn: Turn, texts: list[str], probe: TemplateProbe, has_tools: bool
) -> str | list[dict[str, str]]:
    if turn.is_list and probe.takes_parts(turn.role, has_tools=has_tools):
        return [{"type": "text", "text": text} for text in texts]
    return "\n".join(texts)


def _call(part: ToolCallPart, wants_objects: bool) -> dict[str, Any]:
    call: dict[str, Any] = {} if part.id is None else {"id": part.id}
    arguments = _parsed(part.arguments) if wants_objects else part.arguments
    function = {"name": part.name, "arguments": arguments}
    return {**call, "type": "function", "function": function}


def _parsed(arguments: str) -> Any:
    try:
        parsed = json.loads(arguments) if arguments.strip() else {}
    except ValueError:
        # A model may have written it so. The template decides; refusing would end the chat.
        return arguments
    return parsed if isinstance(parsed, dict | list) else arguments
