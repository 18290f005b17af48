"""A typed chat request to an `Ask`. Nothing is accepted and ignored: what cannot be honoured is
refused here by name, unless its value changes nothing."""

from typing import Any

from msgspec import json

from dynemo.api.openai.types import ChatRequest, ContentPart, Message, ResponseFormat
from dynemo.errors import RequestError, UnsupportedField
from dynemo.messages import Ask, Guide

#: Values of unhonoured fields that change nothing, beside null. Compared by value and type.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logprobs": (False,),
    "modalities": (["text"],),
    "moderation": (),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "prompt_cache_options": (),
    "reasoning_effort": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
_NEUTRAL_IN_MESSAGE: dict[str, tuple[Any, ...]] = {
    "annotations": ([],),
    "audio": (),
    "function_call": (),
}
#: Who may carry a field of a message.
_ONLY_ROLE = {
    "tool_calls": "assistant",
    "reasoning_content": "assistant",
    "refusal": "assistant",
    "tool_call_id": "tool",
}


def to_ask(asked: ChatRequest) -> Ask:
    """Raises RequestError, UnsupportedField."""
    _refuse_unhonoured(asked, _NEUTRAL)
    _check_combinations(asked)
    return Ask(
        messages=[_message(i, message) for i, message in enumerate(asked.messages)],
        model=asked.model,
        add_generation_prompt=asked.add_generation_prompt,
        continue_final_message=asked.continue_final_message,
        chat_template_kwargs=asked.chat_template_kwargs,
        max_tokens=_max_tokens(asked),
        n=asked.n,
        stop=[asked.stop] if isinstance(asked.stop, str) else asked.stop,
        ignore_eos=asked.ignore_eos,
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=0 if asked.top_k == -1 else asked.top_k,
        min_p=asked.min_p,
        seed=asked.seed,
        presence_penalty=asked.presence_penalty,
        frequency_penalty=asked.frequency_penalty,
        repetition_penalty=asked.repetition_penalty,
        logit_bias=asked.logit_bias,
        guide=_guide(asked.response_format),
    )


def wants_usage(asked: ChatRequest) -> bool:
    """Whether a stream's last chunk is to carry the usage."""
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


def _guide(wanted: ResponseFormat | None) -> Guide | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return Guide("json_schema", '{"type":"object"}')
    if wanted.type == "grammar":
        if not wanted.grammar:
            raise _missing("response_format.grammar")
        return Guide("grammar", wanted.grammar)
    if wanted.json_schema is None:
        raise _missing("response_format.json_schema")
    return Guide("json_schema", json.encode(wanted.json_schema.schema or {}).decode())


def _missing(field: str) -> RequestError:
    return RequestError(
        f"Missing required parameter: '{field}'.", param=field, code="missing_required_parameter"
    )


def _max_tokens(asked: ChatRequest) -> int | None:
    old, new = asked.max_tokens, asked.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise RequestError(
            "'max_tokens' and 'max_completion_tokens' differ; set one of them.", param="max_tokens"
        )
    return old if new is None else new


def _message(index: int, message: Message) -> dict[str, Any]:
    """The message as a plain dict that has the keys which say something.

    `developer` becomes `system`: it is OpenAI's newer name of that role, and templates know the
    older one.
    """
    place = f"messages[{index}]"
    _refuse_unhonoured(message, _NEUTRAL_IN_MESSAGE, place + ".")
    for name, role in _ONLY_ROLE.items():
        if getattr(message, name) is not None and message.role != role:
            raise RequestError(
                f"Invalid '{place}.{name}': only messages with role '{role}' may have it.",
                param=f"{place}.{name}",
            )
    plain: dict[str, Any] = {"role": "system" if message.role == "developer" else message.role}
    content = _content(message, place)
    if content is not None:
        plain["content"] = content
    if message.name is not None:
        plain["name"] = message.name
    if message.tool_calls:
        plain["tool_calls"] = [
            {
                **({} if call.id is None else {"id": call.id}),
                "type": call.type,
                "function": {"name": call.function.name, "arguments": call.function.arguments},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        plain["tool_call_id"] = message.tool_call_id
    if message.reasoning_content is not None:
        plain["reasoning_content"] = message.reasoning_content
    return plain


def _content(message: Message, place: str) -> str | list[dict[str, str]] | None:
    content = message.content
    if content is None:
        if message.role == "assistant":
            # A refusal that a client sends back is what the assistant said.
            return message.refusal
        raise RequestError(
            f"Invalid '{place}.content': expected a string or a list of parts, got null.",
            param=f"{place}.content",
            code="invalid_value",
        )
    if isinstance(content, str):
        return content
    return [_part(part, f"{place}.content[{i}]") for i, part in enumerate(content)]


def _part(part: ContentPart, place: str) -> dict[str, str]:
    if part.type != "text":
        raise UnsupportedField(
            f"'{place}' is a part of type '{part.type[:40]}'; only text is supported yet.",
            param=place,
        )
    if part.text is None:
        raise _missing(f"{place}.text")
    for name in part.__struct_fields__:
        if name not in ("type", "text") and getattr(part, name) is not None:
            raise UnsupportedField(
                f"'{place}.{name}' is not supported in a part of text.", param=f"{place}.{name}"
            )
    return {"type": "text", "text": part.text}
