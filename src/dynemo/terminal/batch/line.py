"""Converts a line of a batch from JSON to an ask, and its answer to JSON."""

from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, structs

from dynemo.api.openai.chat import read_chat_ask
from dynemo.api.openai.tool_types import AnsweredCall, AnsweredFunction
from dynemo.errors import DynemoError, RequestError, UnsupportedField
from dynemo.foreign import decode_json
from dynemo.messages.ask import Ask, set_fields, text_turn
from dynemo.terminal.reply import Reply

#: Fields that identify a line. They are copied to the output line.
IDS = ("id", "custom_id")


class Key(Struct, frozen=True):
    """Identifies the input line of an output line. Every output line begins with its key."""

    line: int  #: from 1; blank lines count
    input_hash: str


class OutputLine(Key, frozen=True, kw_only=True):
    """A line of the output. It holds either an answer or `error`."""

    id: Any = UNSET
    custom_id: Any = UNSET
    response: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[AnsweredCall] | UnsetType = UNSET
    finish_reason: str | UnsetType = UNSET
    tokens_in: int | UnsetType = UNSET
    tokens_out: int | UnsetType = UNSET
    elapsed_ms: float | UnsetType = UNSET
    error: str | UnsetType = UNSET


def key_of(number: int, data: bytes, setup: bytes) -> Key:
    """Returns the key of a line. `setup` is everything else that affects its answer."""
    seed = blake2b(setup, digest_size=32).digest()
    return Key(number, blake2b(data, key=seed, digest_size=8).hexdigest())


def parse(data: bytes) -> Ask:
    """Parses a line: the fields of a chat request, or `text` for a single user message.

    Raises RequestError, which names the wrong field.
    """
    try:
        fields = decode_json(data, dict[str, Raw])
    except msgspec.ValidationError:
        raise RequestError("The line is not a JSON object.") from None
    except msgspec.DecodeError as error:
        raise RequestError(f"The line is not valid JSON: {error}.") from None
    for name in IDS:
        fields.pop(name, None)
    text = fields.pop("text", None)
    if text is not None:
        if "messages" in fields:
            raise RequestError(
                "'text' and 'messages' exclude each other. Use one of them.", param="text"
            )
        fields["messages"] = _as_messages(text)
    elif "messages" not in fields:
        raise RequestError("The line needs 'text' or 'messages'.", param="messages")
    ask = read_chat_ask(msgspec.json.encode(fields))
    for name in ("logprobs", "prompt_logprobs"):
        if getattr(ask, name) is not None:
            raise UnsupportedField(f"'{name}' is not supported in a batch.", param=name)
    if (ask.n or 1) > 1:
        raise UnsupportedField(
            "'n' must be 1 in a batch, because a line has one answer.", param="n"
        )
    return ask


def _as_messages(text: Raw) -> Raw:
    try:
        content = decode_json(text, str)
    except msgspec.DecodeError:
        raise RequestError("'text' must be a string.", param="text") from None
    return Raw(msgspec.json.encode([{"role": "user", "content": content}]))


def complete(ask: Ask, settings: Ask, *, model: str, system: str | None) -> Ask:
    """Returns `ask` with its unset fields taken from the run.

    `system` is added unless the line has a system message.
    """
    turns = ask.turns
    if system and not any(turn.role == "system" for turn in turns):
        turns = [text_turn("system", system), *turns]
    return structs.replace(settings, **{"model": model, **set_fields(ask), "turns": turns, "n": 1})


def answered(key: Key, data: bytes, reply: Reply, prompt_tokens: int) -> OutputLine:
    """Returns the output line of an answer."""
    return OutputLine(
        line=key.line,
        input_hash=key.input_hash,
        **_ids(data),
        response=reply.text,
        reasoning=reply.reasoning or UNSET,
        tool_calls=[
            AnsweredCall(id=call.id or "", function=AnsweredFunction(call.name, call.arguments))
            for call in reply.calls
        ]
        or UNSET,
        finish_reason=reply.finish.reason if reply.finish else UNSET,
        tokens_in=prompt_tokens,
        tokens_out=reply.tokens,
        elapsed_ms=round(reply.elapsed * 1000, 1),
    )


def failed(key: Key, data: bytes, error: DynemoError) -> OutputLine:
    """Returns the output line of a failed line."""
    return OutputLine(line=key.line, input_hash=key.input_hash, **_ids(data), error=str(error))


def _ids(data: bytes) -> dict[str, Any]:
    """Returns the ids of a line, even if the rest of it is invalid."""
    try:
        fields = decode_json(data, dict[str, Raw])
        return {name: decode_json(fields[name], Any) for name in IDS if name in fields}
    except msgspec.DecodeError:
        return {}
