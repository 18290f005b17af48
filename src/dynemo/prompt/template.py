"""Chat templates: a conversation to the exact prompt text that the model was trained on.

A template is a Jinja program that comes with the model. What it prints depends on the environment
it runs in, so this one is transformers' environment to the letter: the sandbox, block trimming, the
`generation` tag, loop controls, a `tojson` that escapes no HTML, `raise_exception`,
`strftime_now`, and a `dict` and a `namespace` that lead nowhere near Python's internals. Anything
faster or newer prints something else for some model.

Jinja is imported when the first template is compiled: it costs 50 ms that `--help` need not pay.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dynemo.errors import ModelError, RequestError
from dynemo.prompt.probe import Message, TemplateProbe

if TYPE_CHECKING:
    from types import TracebackType

    from jinja2 import Template
    from jinja2.sandbox import ImmutableSandboxedEnvironment

#: The names under which a message's reasoning travels. Templates read the first one; gpt-oss reads
#: the second.
REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")

#: Marks where the final message ends in the rendered text. transformers' own spelling, because a
#: template may test, split or strip content that holds it.
_CONTINUE_TAG = "CONTINUE_FINAL_MESSAGE_TAG "

_RESERVED = frozenset({"messages", "tools", "documents", "add_generation_prompt"})


class ChatTemplate:
    """A model's chat template, or its named templates, compiled once. Safe to share by threads.

    `source` is one template or a mapping that has `default` and may have `tool_use`, which is
    chosen when tools are given. `special_tokens` are the variables that a template may print, by
    transformers' names (`bos_token`, `eos_token`, ...); one that the tokenizer lacks must be left
    out, so that it is undefined. `now` is the clock of `strftime_now`.

    Raises ModelError for a template that cannot be compiled.
    """

    def __init__(
        self,
        source: str | Mapping[str, str],
        *,
        special_tokens: Mapping[str, str] | None = None,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        sources = {"default": source} if isinstance(source, str) else dict(source)
        if "default" not in sources:
            names = ", ".join(sorted(sources)) or "none"
            raise ModelError(
                f"the model has no chat template named 'default' (it has: {names}); "
                "give the folder of a model that has one with --model-config DIR"
            )
        self.sources: Mapping[str, str] = sources
        self.special_tokens: Mapping[str, str] = dict(special_tokens or {})
        self.probe = TemplateProbe(self.render)
        environment = _environment(now)
        self._compiled = {name: _compile(environment, name, s) for name, s in sources.items()}

    def name_for(self, tools: Sequence[Any] | None) -> str:
        """Which of the named templates renders a conversation with these tools."""
        return "tool_use" if tools is not None and "tool_use" in self.sources else "default"

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Any] | None = None,
        documents: Sequence[Any] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """The text of a conversation, as transformers' `apply_chat_template` renders it.

        Message keys whose value is None are dropped, and reasoning is known under all its names;
        nothing else is changed (`normalise.py` adapts what clients send). `kwargs` are further
        variables for the template; they win over the special tokens.

        Raises RequestError: with the template's own words where it refuses the conversation, with
        the reason where it breaks on it.
        """
        if not messages:
            raise RequestError("messages must hold at least one message", param="messages")
        if continue_final_message and add_generation_prompt:
            raise RequestError(
                "continue_final_message and add_generation_prompt cannot both be true",
                param="continue_final_message",
            )
        name = self.name_for(tools)
        chat = [_prepared(message) for message in messages]
        final = _tag_final_message(chat, self.sources[name]) if continue_final_message else None
        variables = {
            **self.special_tokens,
            **_checked(kwargs),
            "messages": chat,
            "tools": tools,
            "documents": documents,
            "add_generation_prompt": add_generation_prompt,
        }
        text = _run(self._compiled[name], variables)
        return text if final is None else _cut_at_tag(text, final)


def _prepared(message: Message) -> dict[str, Any]:
    # OpenAI clients send `content: null` and `tool_calls: null`; templates test whether a key is
    # there. The order of keys matters where a template prints a whole message as JSON.
    prepared = {key: value for key, value in message.items() if value is not None}
    for field in REASONING_FIELDS:
        if field in prepared:
            reasoning = prepared[field]
            return {"thinking": reasoning, **prepared, "reasoning_content": reasoning}
    return prepared


def _checked(kwargs: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if not kwargs:
        return {}
    for name in kwargs:
        if name in _RESERVED:
            raise RequestError(
                f"chat_template_kwargs cannot set {name!r}: it is a field of the request",
                param="chat_template_kwargs",
            )
    return kwargs


def _tag_final_message(chat: list[dict[str, Any]], source: str) -> str:
    """Mark the end of the last message's text, and return that text."""
    content = chat[-1].get("content")
    if content is None:
        raise RequestError(
            "continue_final_message is set but the final message has no content to continue",
            param="messages",
        )
    if "content" not in source:
        raise RequestError(
            "continue_final_message is set but the chat template does not read 'content'",
            param="continue_final_message",
        )
    if isinstance(content, str):
        chat[-1]["content"] = content + _CONTINUE_TAG
        return content
    parts = list(content)
    for index in reversed(range(len(parts))):
        part = parts[index]
        if isinstance(part, Mapping) and isinstance(part.get("text"), str):
            parts[index] = {**part, "text": part["text"] + _CONTINUE_TAG}
            chat[-1]["content"] = parts
            return str(part["text"])
    raise RequestError(
        "continue_final_message is set but the final message has no text to continue",
        param="messages",
    )


def _cut_at_tag(text: str, final: str) -> str:
    tag = _CONTINUE_TAG.strip()
    at = text.rfind(tag)
    if at < 0 or final.strip() not in text:
        raise RequestError(
            "continue_final_message is set but the chat template drops or changes the text of "
            "the final message, so it cannot be continued",
            param="continue_final_message",
        )
    # A template that trims content takes the tag's own trailing space too. Then the message's
    # trailing space was meant to go as well.
    if text.startswith(_CONTINUE_TAG, at):
        return text[:at]
    return text[:at].rstrip()


def _run(template: Template, variables: Mapping[str, Any]) -> str:
    try:
        return template.render(variables)
    except RequestError:
        raise
    except Exception as error:
        # A template is its author's program running over a client's data: whatever it raises (an
        # undefined name, a forbidden attribute, endless recursion) is about this request.
        where = _template_line(error.__traceback__)
        raise RequestError(
            f"the model's chat template cannot render these messages: {error}{where}",
            param="messages",
        ) from error


def _template_line(traceback: TracebackType | None) -> str:
    line = 0
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == "<template>":
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return f" (line {line} of the template)" if line else ""


def _compile(environment: ImmutableSandboxedEnvironment, name: str, source: str) -> Template:
    from jinja2 import TemplateError

    try:
        return environment.from_string(source)
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        where = f", line {line}" if line else ""
        raise ModelError(
            f"the model's chat template '{name}' is not valid Jinja: {error.message}{where}"
        ) from error


def _environment(now: Callable[[], datetime]) -> ImmutableSandboxedEnvironment:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    from dynemo.prompt.jinja import GenerationTag, TemplateDict, TemplateNamespace

    def strftime_now(format: str) -> str:
        return now().strftime(format)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[GenerationTag, "jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = strftime_now
    environment.globals["dict"] = TemplateDict()
    environment.globals["namespace"] = TemplateNamespace
    return environment


def _raise_exception(message: object) -> None:
    # Not a Jinja exception: a template cannot catch anything, so only the class that arrives at
    # our caller counts.
    raise RequestError(str(message), param="messages")


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
