"""A typed chat request to an `Ask`.

Nothing is accepted and ignored: a field that cannot be honoured is refused by name, unless its
value changes nothing.
"""

from collections.abc import Sequence
from typing import Any

from msgspec import json, structs

from dynemo.api.openai.decode import convert_messages
from dynemo.api.openai.detail import read_detail
from dynemo.api.openai.guides import check_depth, missing
from dynemo.api.openai.tool_types import ToolCall
from dynemo.api.openai.tools import read_tools
from dynemo.api.openai.types import (
    ChatRequest,
    ContentPart,
    Message,
)
from dynemo.errors import RequestError, UnsupportedField
from dynemo.limits import TEMPLATE_KWARGS_BYTES
from dynemo.messages.ask import (
    Ask,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Turn,
)
from dynemo.messages.request import Guide

#: Values of unhonoured fields that change nothing, besides null. Compared by value and type.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "modalities": (["text"],),
    "moderation": (),
    "verbosity": ("medium",),
    "web_search_options": (),
}
_NEUTRAL_IN_MESSAGE: dict[str, tuple[Any, ...]] = {
    "audio": (),
}
#: Fields that `Ask` has under the same name and with the same meaning.
_SAME = (
    (set(ChatRequest.__struct_fields__) & set(Ask.__struct_fields__))
    - _NEUTRAL.keys()
    - {"tools", "tool_choice", "reasoning_effort", "logprobs"}
)
#: Fields of a content part that say nothing to the model.
_IGNORED_IN_PART = {"annotations", "cache_control", "prompt_cache_breakpoint"}
#: The only role whose messages may have the field. Others may have it empty.
_ONLY_ROLE = {
    "tool_calls": "assistant",
    "function_call": "assistant",
    "reasoning_content": "assistant",
    "refusal": "assistant",
    "tool_call_id": "tool",
}


def read_chat(asked: ChatRequest, guide: Guide | None) -> Ask:
    """`guide` is what `read_guide` reads. Raises RequestError, UnsupportedField."""
    _refuse_unhonoured(asked, _NEUTRAL)
    _check_combinations(asked)
    _check_kwargs(asked.chat_template_kwargs)
    tools, choice = read_tools(asked)
    fields = {name: getattr(asked, name) for name in _SAME}
    fields |= {
        "tools": tools,
        "tool_choice": choice,
        "reasoning": None if asked.reasoning_effort is None else asked.reasoning_effort != "none",
        "reasoning_effort": None if asked.reasoning_effort == "none" else asked.reasoning_effort,
        "turns": _turns(asked.messages),
        "max_tokens": _max_tokens(asked),
        "stop": [asked.stop] if isinstance(asked.stop, str) else asked.stop,
        "top_k": 0 if asked.top_k == -1 else asked.top_k,
        "guide": guide,
    }
    return Ask(**fields | read_detail(asked))


def wants_usage(asked: ChatRequest) -> bool:
    """Whether the last chunk of the stream carries the usage."""
    return asked.stream_options is not None and bool(asked.stream_options.include_usage)


def _refuse_unhonoured(
    fields: ChatRequest | Message, neutral: dict[str, tuple[Any, ...]], place: str = ""
) -> None:
    for name, values in neutral.items():
        value = getattr(fields, name)
        if value is None or any(value == v and type(value) is type(v) for v in values):
            continue
        raise UnsupportedField(f"'{place}{name}' is not supported yet.", param=f"{place}{name}")


def _check_combinations(asked: ChatRequest) -> None:
    options = asked.stream_options
    if options is not None:
        if not asked.stream:
            raise RequestError(
                "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
                param="stream_options",
            )
        if options.include_obfuscation:
            field = "stream_options.include_obfuscation"
            raise UnsupportedField(f"'{field}' is not supported yet.", param=field)
    if asked.continue_final_message:
        if asked.add_generation_prompt:
            raise RequestError(
                "'continue_final_message' and 'add_generation_prompt' exclude each other.",
                param="continue_final_message",
            )
        if asked.messages[-1].role != "assistant":
            raise RequestError(
                "'continue_final_message' needs a last message with role 'assistant'.",
                param="continue_final_message",
            )


def _check_kwargs(kwargs: dict[str, Any] | None) -> None:
    if kwargs is None:
        return
    check_depth(kwargs, "chat_template_kwargs")
    if len(json.encode(kwargs)) > TEMPLATE_KWARGS_BYTES:
        raise RequestError(
            f"Invalid 'chat_template_kwargs': it may have {TEMPLATE_KWARGS_BYTES:,} bytes.",
            param="chat_template_kwargs",
            detail="invalid_value",
        )


def _max_tokens(asked: ChatRequest) -> int | None:
    old, new = asked.max_tokens, asked.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise RequestError(
            "'max_tokens' and 'max_completion_tokens' differ; set one of them.", param="max_tokens"
        )
    return old if new is None else new


def read_turns(messages: object) -> list[Turn]:
    """The turns of messages that come from a file and not from a request: of any role, with their
    reasoning under any of its names. Raises RequestError that names the place."""
    if not isinstance(messages, list):
        raise RequestError("'messages' must be a list of messages.", param="messages")
    return [
        _turn(message, f"messages[{index}]")
        for index, message in enumerate(convert_messages(messages))
    ]


def _turns(messages: Sequence[Message]) -> list[Turn]:
    """The older form of calls has no ids, so a call and its result get one here."""
    turns: list[Turn] = []
    older_ids: dict[str, str] = {}  # of the last call of each function
    for index, message in enumerate(messages):
        if message.function_call is not None:
            older_ids[message.function_call.name] = older_id = f"call{index:05}"
            message = structs.replace(
                message, tool_calls=[ToolCall(function=message.function_call, id=older_id)]
            )
        elif message.role == "function":
            older_id = older_ids.get(message.name or "", "")
            message = structs.replace(message, role="tool", tool_call_id=older_id or None)
        turns.append(_system(_turn(message, f"messages[{index}]")))
    return turns


def _system(turn: Turn) -> Turn:
    """`developer` becomes `system`: it is OpenAI's newer name of that role, and templates know the
    older one."""
    return structs.replace(turn, role="system") if turn.role == "developer" else turn


def _turn(message: Message, place: str) -> Turn:
    _refuse_unhonoured(message, _NEUTRAL_IN_MESSAGE, place + ".")
    for name, role in _ONLY_ROLE.items():
        if getattr(message, name) and message.role != role:
            raise RequestError(
                f"Invalid '{place}.{name}': only messages with role '{role}' may have it.",
                param=f"{place}.{name}",
            )
    texts = _texts(message, place)
    if message.role == "tool":
        result = ToolResultPart("\n".join(texts), message.tool_call_id, message.name)
        return Turn("tool", (result,))
    parts: list[Part] = []
    if (reasoning := _reasoning(message)) is not None:
        parts.append(ReasoningPart(reasoning))
    parts += [TextPart(text) for text in texts]
    calls = message.tool_calls or ()
    parts += [_call(call, f"{place}.tool_calls[{i}]") for i, call in enumerate(calls)]
    return Turn(message.role, tuple(parts), message.name, isinstance(message.content, list))


def _reasoning(message: Message) -> str | None:
    names = (message.reasoning_content, message.thinking, message.reasoning)
    return next((text for text in names if text is not None), None)


def _call(call: ToolCall, place: str) -> ToolCallPart:
    arguments = call.function.arguments
    if arguments is None:
        arguments = ""
    if isinstance(arguments, dict):
        check_depth(arguments, f"{place}.function.arguments")
        arguments = json.encode(arguments).decode()
    return ToolCallPart(call.function.name, arguments, call.id)


def _texts(message: Message, place: str) -> list[str]:
    """One for each part of the content; none at all for a message without content."""
    content = message.content
    if content is None:
        if message.role == "assistant":
            # A refusal that a client sends back is what the assistant said.
            return [] if message.refusal is None else [message.refusal]
        if message.role == "tool":  # a function that returns nothing
            return []
        raise RequestError(
            f"Invalid '{place}.content': expected a string or a list of parts, got null.",
            param=f"{place}.content",
            detail="invalid_value",
        )
    if isinstance(content, str):
        return [content]
    return [_text(part, f"{place}.content[{i}]") for i, part in enumerate(content)] or [""]


def _text(part: ContentPart, place: str) -> str:
    if part.type not in ("text", "refusal"):
        raise UnsupportedField(
            f"'{place}' is a part of type '{part.type[:40]}'; only text is supported yet.",
            param=place,
        )
    text = getattr(part, part.type)
    if not isinstance(text, str):
        raise missing(f"{place}.{part.type}")
    for name in set(part.__struct_fields__) - _IGNORED_IN_PART - {"type", part.type}:
        if getattr(part, name) is not None:
            raise UnsupportedField(
                f"'{place}.{name}' is not supported in a part of type '{part.type}'.",
                param=f"{place}.{name}",
            )
    return text
