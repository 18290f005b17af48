"""The one way from a conversation to a prompt and its token ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dynemo.errors import ContextLengthExceeded, RequestError
from dynemo.messages.ask import Turn
from dynemo.prompt.normalise import fill_content, template_messages
from dynemo.prompt.probe import Message
from dynemo.prompt.template import ChatTemplate
from dynemo.tokenizers.base import Tokenizer

_LIKELY_CHARACTERS = 8  # a token, at most, in most texts
_MARGIN = 64


@dataclass(frozen=True, slots=True)
class RenderInput:
    """What a chat request says about its prompt. `kwargs` is `chat_template_kwargs`.

    `add_generation_prompt` is true unless said otherwise or the final message is to be continued.
    """

    turns: Sequence[Turn]
    tools: Sequence[Any] | None = None
    documents: Sequence[Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool = False
    kwargs: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    text: str
    token_ids: list[int]


def build_prompt(
    template: ChatTemplate,
    tokenizer: Tokenizer,
    chat: RenderInput,
    *,
    limit: int | None = None,
) -> Prompt:
    """Render and tokenize a conversation, as transformers' `apply_chat_template(tokenize=True)`.

    The text is encoded without adding BOS or EOS: a chat template prints the ones that its model
    wants, and a second BOS, or one that the model was never trained with, makes the model worse.
    Control tokens are parsed in all of the text, so a user who types `<|im_end|>` ends the turn;
    transformers and vLLM do the same, and a prompt that they would not build is not exact.

    `limit` is the context's length: a prompt that is far over it is refused before all of it has
    been tokenized.

    Raises RequestError.
    """
    return tokenized(render_prompt(template, chat), tokenizer, limit=limit)


def tokenized(text: str, tokenizer: Tokenizer, *, limit: int | None = None) -> Prompt:
    """The second half of `build_prompt`."""
    try:
        if limit is not None:
            _check_length(text, tokenizer, limit)
        ids = tokenizer.encode(text, add_special=False, parse_special=True)
    except UnicodeError:
        raise RequestError(
            "the messages hold half of a surrogate pair, which is no character", param="messages"
        ) from None
    return Prompt(text, ids)


def _check_length(text: str, tokenizer: Tokenizer, limit: int) -> None:
    """Tokenizes ever longer beginnings while they fit: a text of 30 MB would take half a minute,
    and hold up everybody else, only to be refused."""
    size = limit * _LIKELY_CHARACTERS
    while size < len(text):
        count = len(tokenizer.encode(text[:size], add_special=False, parse_special=True))
        # Where the text is cut its last tokens may differ, by a few.
        if count > limit + _MARGIN:
            raise ContextLengthExceeded(
                f"This model's maximum context length is {limit} tokens, but the messages resulted "
                f"in more than {count - _MARGIN} tokens. Please shorten the messages.",
                param="messages",
            )
        size *= 4


def render_prompt(template: ChatTemplate, chat: RenderInput) -> str:
    """The text alone: the turns in the form that the template takes (`normalise`), then rendered.

    Raises RequestError.
    """
    chat = _with_flags_of_kwargs(chat)
    tools = chat.tools or None
    messages = template_messages(chat.turns, template.probe, has_tools=tools is not None)
    try:
        return _render(template, chat, messages)
    except RequestError:
        # A key that is absent is what transformers makes of null. Some templates read it all the
        # same, and take empty text.
        if chat.continue_final_message or all(m.get("content") is not None for m in messages):
            raise
        try:
            return _render(template, chat, fill_content(messages))
        except RequestError:
            pass
        raise


def render_as_given(template: ChatTemplate, messages: Sequence[Message], chat: RenderInput) -> str:
    """The text of messages that the template gets untouched: what transformers gives, even where
    the template then drops what the user wrote. `chat` has the rest. Raises RequestError."""
    return _render(template, _with_flags_of_kwargs(chat), messages)


def _render(template: ChatTemplate, chat: RenderInput, messages: Sequence[Message]) -> str:
    add_generation_prompt = chat.add_generation_prompt
    if add_generation_prompt is None:
        add_generation_prompt = not chat.continue_final_message
    return template.render(
        messages,
        tools=chat.tools or None,
        documents=chat.documents,
        add_generation_prompt=add_generation_prompt,
        continue_final_message=chat.continue_final_message,
        kwargs=chat.kwargs,
    )


def _with_flags_of_kwargs(chat: RenderInput) -> RenderInput:
    """`chat_template_kwargs` may name what `apply_chat_template` takes by name; it wins."""
    if not chat.kwargs:
        return chat
    rest = dict(chat.kwargs)
    flags: dict[str, Any] = {}
    for name in ("add_generation_prompt", "continue_final_message"):
        if name in rest:
            flags[name] = rest.pop(name)
            if not isinstance(flags[name], bool):
                raise RequestError(
                    f"chat_template_kwargs.{name} must be true or false",
                    param="chat_template_kwargs",
                )
    if "documents" in rest:
        flags["documents"] = rest.pop("documents")
    return replace(chat, kwargs=rest, **flags)
