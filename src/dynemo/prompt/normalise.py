"""Converts turns to the messages that chat templates read. Only here do parts become dicts.

Templates and clients disagree in three ways. Arguments of tool calls are JSON text on the wire, and
objects in most templates. Content may be a list of parts on the wire, and is a string in most
templates. A tool call's content is null on the wire, and absent or empty in templates.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from json import dumps
from typing import Any

from msgspec import DecodeError

from dynemo.foreign import decode_any_json, is_deeper
from dynemo.limits import JSON_DEPTH
from dynemo.messages.ask import ReasoningPart, ToolCallPart, ToolResultPart, Turn
from dynemo.prompt.probe import TemplateProbe


def template_messages(
    turns: Sequence[Turn], probe: TemplateProbe, *, has_tools: bool = False
) -> list[dict[str, Any]]:
    """Returns the conversation in the form that the probed template reads.

    - A list of text parts stays a list if the template prints it like a string. Otherwise the parts
      are
      joined by newlines.
    - Tool call arguments that are the JSON text of an object become that object, unless the
      template
      requires text. Text that is not JSON stays unchanged.
    - A turn without text has no `content`, and one without calls has no `tool_calls`, because
      templates
      test whether the key exists.
    """
    wants_objects = any(
        isinstance(part, ToolCallPart) for turn in turns for part in turn.parts
    ) and probe.takes_argument_objects(has_tools=has_tools)
    messages = []
    for turn in in_call_order(turns):
        for message in _messages(turn, wants_objects=wants_objects):
            texts = message.get("content")
            if texts is not None:
                message["content"] = _content(turn, texts, probe, has_tools)
            messages.append(message)
    return messages


def in_call_order(turns: Iterable[Turn]) -> Iterator[Turn]:
    """Yields the turns, with the results of calls in the order of the calls.

    Many templates print no ids, so the model tells results apart by their order alone.
    """
    order: dict[str, int] = {}
    results: list[Turn] = []
    for turn in turns:
        if len(turn.parts) == 1 and isinstance(turn.parts[0], ToolResultPart):
            results.append(turn)
            continue
        yield from _sorted(results, order)
        results = []
        calls = [part.id for part in turn.parts if isinstance(part, ToolCallPart)]
        order = {call_id: place for place, call_id in enumerate(calls) if call_id is not None}
        yield turn
    yield from _sorted(results, order)


def _sorted(results: list[Turn], order: dict[str, int]) -> list[Turn]:
    parts = [part for turn in results for part in turn.parts]
    ids = [part.call_id for part in parts if isinstance(part, ToolResultPart)]
    if len(results) < 2 or not all(call_id in order for call_id in ids):
        return results
    places = [order[call_id] for call_id in ids if call_id is not None]
    return [results[at] for at in sorted(range(len(results)), key=places.__getitem__)]


def plain_messages(turns: Iterable[Turn]) -> list[dict[str, Any]]:
    """Returns the conversation with plain text as content and as arguments of calls.

    Missing content becomes empty text. This is the form for engines that take messages, and for
    saved chats.
    """
    return [
        {**message, "content": "\n".join(message.get("content", ()))}
        for turn in in_call_order(turns)
        for message in _messages(turn, wants_objects=False)
    ]


def fill_content(messages: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns the messages with empty text for missing content, as some templates require."""
    return [
        {**message, "content": ""} if message.get("content") is None else message
        for message in messages
    ]


def _messages(turn: Turn, *, wants_objects: bool) -> Iterator[dict[str, Any]]:
    """Yields a turn's messages. Each tool result is one message. `content` is a list of texts."""
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
        parsed = decode_any_json(arguments) if arguments.strip() else {}
    except DecodeError:
        # The model may have written this text. The template decides: an error would end the chat.
        return arguments
    if not isinstance(parsed, dict | list) or is_deeper(parsed, JSON_DEPTH):
        return arguments
    return _with_whole_characters(parsed) if "\\ud" in arguments.lower() else parsed


def _with_whole_characters(parsed: Any) -> Any:
    """Replaces halves of surrogate pairs, which a model may escape in JSON, by U+FFFD."""
    text = dumps(parsed, ensure_ascii=False)
    return decode_any_json(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
