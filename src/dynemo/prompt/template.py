"""Chat templates turn a conversation into the exact prompt text that the model was trained on.

A template is a Jinja program that ships with the model. Its output depends on its environment, so
this environment equals transformers' environment. It has the sandbox, block trimming, the
`generation` tag, loop controls, `raise_exception` and `strftime_now`. Its `tojson` does not escape
HTML, and its `dict` and `namespace` do not expose Python's internals. A faster or newer environment
would print something else for some models.

Jinja is imported when the first template is compiled: the import takes 50 ms, and `--help` does not
need it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, simplefilter

from dynemo.errors import ModelError, RequestError
from dynemo.limits import TEMPLATE_CHARACTERS, TEMPLATE_TOKENS
from dynemo.prompt.probe import Message, TemplateProbe

if TYPE_CHECKING:
    from types import TracebackType

    from jinja2 import Template
    from jinja2.sandbox import ImmutableSandboxedEnvironment

#: The names of a message's reasoning on the wire. Most templates read the first, gpt-oss the
#: second.
REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")

#: Marks the end of the final message in the rendered text. This is transformers' own spelling,
#: because a template may test, split or strip content that holds it.
_CONTINUE_TAG = "CONTINUE_FINAL_MESSAGE_TAG "

#: The functions of a template that cost no more than what they are given.
_FUNCTIONS = ("range", "dict", "cycler", "joiner", "namespace", "raise_exception", "strftime_now")

_RESERVED = frozenset({"messages", "tools", "documents", "add_generation_prompt"})


class ChatTemplate:
    """A model's chat template, or its named templates, compiled once. Threads may share it.

    `source` is one template, or a mapping with `default` and perhaps `tool_use`, which is used if
    there are tools. `special_tokens` are the variables that a template may print, by transformers'
    names (`bos_token`, `eos_token`, ...). A token that the tokenizer lacks must be missing, so that
    its variable is undefined. `now` is the clock of `strftime_now`. `is_bounded`: a rendering that
    needs many steps raises RenderTooLong. Only a process that can be killed goes without.

    Raises ModelError if a template cannot be compiled.
    """

    def __init__(
        self,
        source: str | Mapping[str, str],
        *,
        special_tokens: Mapping[str, str] | None = None,
        now: Callable[[], datetime] = datetime.now,
        is_bounded: bool = True,
    ) -> None:
        sources = {"default": source} if isinstance(source, str) else dict(source)
        if "default" not in sources:
            names = ", ".join(sorted(sources)) or "none"
            raise ModelError(
                f'The model has no chat template named "default" (it has: {names}). Use '
                "--model-config DIR to name the folder of a model that has one."
            )
        self.sources: Mapping[str, str] = sources
        self.special_tokens: Mapping[str, str] = dict(special_tokens or {})
        self.probe = TemplateProbe(self.render)
        environment = _environment(now, is_bounded=is_bounded)
        self._compiled = {name: _compile(environment, name, s) for name, s in sources.items()}

    def name_for(self, tools: Sequence[Any] | None) -> str:
        """Returns the name of the template for a conversation with these tools."""
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
        """Returns the text of a conversation, as transformers' `apply_chat_template` renders it.

        Message keys with the value None are dropped, and reasoning is available under all its
        names. Nothing else is changed (`normalise.py` adapts what clients send). `kwargs` are more
        variables for the template; they override the special tokens.

        Raises RequestError if the template refuses the conversation (with its own message) or fails
        on it (with the reason).
        """
        if not messages:
            raise RequestError("The conversation needs at least one message.", param="messages")
        if continue_final_message and add_generation_prompt:
            raise RequestError(
                "'continue_final_message' and 'add_generation_prompt' cannot both be true.",
                param="continue_final_message",
            )
        name = self.name_for(tools)
        chat = [_clean_message(message) for message in messages]
        final = _tag_final_message(chat, self.sources[name]) if continue_final_message else None
        variables = {
            **self.special_tokens,
            **_check_kwargs(kwargs),
            "messages": chat,
            "tools": tools,
            "documents": documents,
            "add_generation_prompt": add_generation_prompt,
        }
        text = _run(self._compiled[name], variables)
        return text if final is None else _cut_at_tag(text, final)


def _clean_message(message: Message) -> dict[str, Any]:
    # OpenAI clients send `content: null` and `tool_calls: null`, but templates test whether a key
    # exists. The order of keys matters if a template prints a whole message as JSON.
    prepared = {key: value for key, value in message.items() if value is not None}
    for field in REASONING_FIELDS:
        if field in prepared:
            reasoning = prepared[field]
            return {"thinking": reasoning, **prepared, "reasoning_content": reasoning}
    return prepared


def _check_kwargs(kwargs: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if not kwargs:
        return {}
    for name in kwargs:
        if name in _RESERVED:
            raise RequestError(
                f"'chat_template_kwargs' cannot set '{name}', which is a field of the request.",
                param="chat_template_kwargs",
            )
    return kwargs


def _tag_final_message(chat: list[dict[str, Any]], source: str) -> str:
    """Marks the end of the last message's text, and returns that text."""
    content = chat[-1].get("content")
    if content is None:
        raise RequestError(
            "'continue_final_message' is set, but the final message has no content to continue.",
            param="messages",
        )
    if "content" not in source:
        raise RequestError(
            "'continue_final_message' is set, but the chat template does not read 'content'.",
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
        "'continue_final_message' is set, but the final message has no text to continue.",
        param="messages",
    )


def _cut_at_tag(text: str, final: str) -> str:
    tag = _CONTINUE_TAG.strip()
    at = text.rfind(tag)
    if at < 0 or final.strip() not in text:
        raise RequestError(
            "'continue_final_message' is set, but the chat template drops or changes the text of "
            "the final message, so it cannot be continued.",
            param="continue_final_message",
        )
    # A template that trims content also removes the tag's own trailing space. Then it trims the
    # message's trailing space as well.
    if text.startswith(_CONTINUE_TAG, at):
        return text[:at]
    return text[:at].rstrip()


def _run(template: Template, variables: Mapping[str, Any]) -> str:
    try:
        return template.render(variables)
    except RequestError:
        raise
    except Exception as error:
        # A template is its author's program, which runs over a client's data. Any exception (an
        # undefined name, a forbidden attribute, endless recursion) concerns this request.
        reason, where = str(error).rstrip("."), _template_line(error.__traceback__)
        raise RequestError(
            f"The model's chat template cannot render these messages: {reason}{where}.",
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

    if len(source) > TEMPLATE_CHARACTERS:
        raise ModelError(
            f'The model\'s chat template "{name}" has {len(source):,} characters, but at most '
            f"{TEMPLATE_CHARACTERS:,} are allowed."
        )
    try:
        # Each token takes 20 us to compile. A shorter source cannot hold too many.
        if len(source) > TEMPLATE_TOKENS and _has_too_many_tokens(environment, source):
            raise ModelError(
                f'The model\'s chat template "{name}" has more than {TEMPLATE_TOKENS:,} words '
                "and signs."
            )
        with catch_warnings():
            simplefilter("ignore")  # Python warns of an odd expression, which is the author's
            return environment.from_string(source)
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        where = f", line {line}" if line else ""
        raise ModelError(
            f'The model\'s chat template "{name}" is not valid Jinja: {error.message}{where}.'
        ) from error
    # Jinja and Python compile by recursion, and Python allows only 20 loops inside each other.
    except (RecursionError, MemoryError):
        reason = "its statements or expressions are too large, or nested too deeply"
    except SyntaxError as error:
        reason = error.msg
    except (ValueError, OverflowError) as error:
        reason = str(error)
    raise ModelError(f'The model\'s chat template "{name}" cannot be compiled: {reason}.')


def _has_too_many_tokens(environment: ImmutableSandboxedEnvironment, source: str) -> bool:
    tokens = (token for token in environment.lex(source) if token[1] != "whitespace")
    return next(islice(tokens, TEMPLATE_TOKENS, None), None) is not None


def _environment(now: Callable[[], datetime], *, is_bounded: bool) -> ImmutableSandboxedEnvironment:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    from dynemo.prompt.bounded import BoundedEnvironment
    from dynemo.prompt.jinja import GenerationTag, TemplateDict, TemplateNamespace

    def strftime_now(format: str) -> str:
        return now().strftime(format)

    kind = BoundedEnvironment if is_bounded else ImmutableSandboxedEnvironment
    environment = kind(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[GenerationTag, "jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = strftime_now
    environment.globals["dict"] = TemplateDict()
    environment.globals["namespace"] = TemplateNamespace
    if isinstance(environment, BoundedEnvironment):
        environment.set_prices(_FUNCTIONS)
    return environment


def _raise_exception(message: object) -> None:
    # Templates cannot catch exceptions, so this need not be a Jinja exception. Only its class at
    # the caller matters.
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
