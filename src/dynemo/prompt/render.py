"""Turns a conversation into a prompt and its token ids. There is no other code path for this."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dynemo.errors import ContextLengthExceeded, RequestError
from dynemo.messages.ask import Turn
from dynemo.prompt.control.render import Given, Rendered, render_marked
from dynemo.prompt.control.texts import ControlTexts
from dynemo.prompt.errors import RenderTooLong
from dynemo.prompt.normalise import fill_content, template_messages
from dynemo.prompt.probe import Message
from dynemo.prompt.template import ChatTemplate
from dynemo.tokenizers.base import Tokenizer

LIKELY_CHARACTERS = 8  #: the most per token in usual texts
_MARGIN = 64


@dataclass(frozen=True, slots=True)
class RenderInput:
    """The part of a chat request that determines its prompt. `kwargs` is `chat_template_kwargs`.

    `add_generation_prompt` defaults to true, unless `continue_final_message` is set. `control` are
    the control tokens that no text of the request may bring into the prompt. Without it, a text
    that spells a token becomes that token.
    """

    turns: Sequence[Turn]
    tools: Sequence[Any] | None = None
    documents: Sequence[Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool = False
    kwargs: Mapping[str, Any] | None = None
    control: ControlTexts | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    text: str
    token_ids: list[int]
    rendered: Rendered | None = None  #: None: of a raw prompt


Render = Callable[[ChatTemplate, RenderInput], Rendered]


def build_prompt(
    template: ChatTemplate,
    tokenizer: Tokenizer,
    chat: RenderInput,
    *,
    limit: int | None = None,
    render: Render | None = None,
) -> Prompt:
    """Renders and tokenizes a conversation, as transformers' `apply_chat_template(tokenize=True)`.

    The text is encoded without adding BOS or EOS, because a chat template prints those that its
    model needs. A BOS that the model was not trained with, or a second BOS, degrades the answers.
    With `chat.control`, only the template makes control tokens (see `control/render.py`): a user
    who types `<|im_end|>` sends these ten characters. Without it, they end the turn, as in
    transformers and vLLM. Texts that spell no control token get the same ids either way.

    `limit` is the context length in tokens. A prompt far beyond it is refused before all of it is
    tokenized. `render` replaces `render_prompt`.

    Raises RequestError.
    """
    return tokenize_prompt((render or render_prompt)(template, chat), tokenizer, limit=limit)


def tokenize_prompt(
    rendered: Rendered, tokenizer: Tokenizer, *, limit: int | None = None
) -> Prompt:
    """Tokenizes a rendered prompt: the second half of `build_prompt`. Raises RequestError."""
    try:
        if limit is not None:
            _check_length(rendered, tokenizer, limit)
        ids = _encode(rendered, rendered.text, tokenizer)
    except UnicodeError:
        raise RequestError(
            "The messages hold half of a surrogate pair, which is not a character. Remove it.",
            param="messages",
        ) from None
    return Prompt(rendered.plain, ids, rendered)


def _encode(rendered: Rendered, text: str, tokenizer: Tokenizer) -> list[int]:
    if rendered.marks:
        return tokenizer.encode_marked(text, rendered.marks)
    return tokenizer.encode(text, add_special=False, parse_special=True)


def _check_length(rendered: Rendered, tokenizer: Tokenizer, limit: int) -> None:
    """Raises ContextLengthExceeded if the text is far longer than `limit` tokens."""
    count = tokens_beyond(limit, rendered.text, lambda text: _encode(rendered, text, tokenizer))
    if count:
        raise ContextLengthExceeded(
            f"This model's maximum context length is {limit} tokens, but the messages resulted "
            f"in more than {count} tokens. Please shorten the messages.",
            param="messages",
        )


def tokens_beyond(limit: int, text: str, encode: Callable[[str], list[int]]) -> int:
    """Returns a number of tokens over `limit` that a far longer text exceeds; else 0.

    It tokenizes ever longer prefixes. Tokenizing 30 MB at once would take half a minute and delay
    other requests, only to refuse the prompt.
    """
    size = limit * LIKELY_CHARACTERS
    while size < len(text):
        count = len(encode(text[:size]))
        # The last tokens before the cut may differ, so a few tokens are tolerated.
        if count > limit + _MARGIN:
            return count - _MARGIN
        size *= 4
    return 0


def render_prompt(template: ChatTemplate, chat: RenderInput) -> Rendered:
    """Renders the turns in the form that the template takes (see `normalise.py`).

    Raises RequestError; RenderTooLong if the template needs a process of its own.
    """
    chat = _with_flags_of_kwargs(chat)
    tools = chat.tools or None
    messages = template_messages(chat.turns, template.probe, has_tools=tools is not None)
    return _render(template, chat, messages, may_fill=True)


def render_as_given(
    template: ChatTemplate, messages: Sequence[Message], chat: RenderInput
) -> Rendered:
    """Renders messages without any change, as transformers does. `chat` holds the other settings.

    The template may then drop parts of the user's text. Raises RequestError.
    """
    return _render(template, _with_flags_of_kwargs(chat), messages)


def _render(
    template: ChatTemplate,
    chat: RenderInput,
    messages: Sequence[Message],
    *,
    may_fill: bool = False,
) -> Rendered:
    def render(given: Given) -> str:
        return (_render_filled if may_fill else _render_given)(template, chat, given)

    given = Given(messages, chat.tools or None, chat.documents, chat.kwargs)
    if chat.control is None:
        return Rendered(render(given), {})
    return render_marked(chat.control, template.sources.values(), given, render)


def _render_filled(template: ChatTemplate, chat: RenderInput, given: Given) -> str:
    messages = given.messages
    try:
        return _render_given(template, chat, given)
    except RenderTooLong:
        raise
    except RequestError:
        # transformers turns null into an absent key. Some templates read the key anyway, and accept
        # empty text.
        if chat.continue_final_message or all(m.get("content") is not None for m in messages):
            raise
        try:
            return _render_given(template, chat, replace(given, messages=fill_content(messages)))
        except RenderTooLong:
            raise
        except RequestError:
            pass
        raise


def _render_given(template: ChatTemplate, chat: RenderInput, given: Given) -> str:
    add_generation_prompt = chat.add_generation_prompt
    if add_generation_prompt is None:
        add_generation_prompt = not chat.continue_final_message
    return template.render(
        given.messages,
        tools=given.tools,
        documents=given.documents,
        add_generation_prompt=add_generation_prompt,
        continue_final_message=chat.continue_final_message,
        kwargs=given.kwargs,
    )


def _with_flags_of_kwargs(chat: RenderInput) -> RenderInput:
    """Moves parameters of `apply_chat_template` from `chat_template_kwargs` to their fields.

    The value in `chat_template_kwargs` takes precedence.
    """
    if not chat.kwargs:
        return chat
    rest = dict(chat.kwargs)
    flags: dict[str, Any] = {}
    for name in ("add_generation_prompt", "continue_final_message"):
        if name in rest:
            flags[name] = rest.pop(name)
            if not isinstance(flags[name], bool):
                raise RequestError(
                    f"'chat_template_kwargs.{name}' must be true or false.",
                    param="chat_template_kwargs",
                )
    if "documents" in rest:
        flags["documents"] = rest.pop("documents")
    return replace(chat, kwargs=rest, **flags)
