"""The neutral form of a request, which belongs to no API and no engine.

A dialect (`api/`) reads a body into an `Ask`; `prompt/` turns it into one `Request` for each
sequence. Dicts end at the dialect: a conversation is turns of parts, and the chat template gets
dicts back from one function, `prompt.normalise`.
"""

from typing import Any, Literal

from msgspec import Struct, structs

from dynemo.messages.request import Guide

Task = Literal["chat", "embed"]


class TextPart(Struct, frozen=True, tag="text"):
    text: str


class ReasoningPart(Struct, frozen=True, tag="reasoning"):
    """The thoughts of an assistant before its answer."""

    text: str


class ToolCallPart(Struct, frozen=True, tag="tool_call"):
    """A call that an assistant made."""

    name: str
    arguments: str  #: as the model wrote them; usually the text of a JSON object
    id: str | None = None


class ToolResultPart(Struct, frozen=True, tag="tool_result"):
    """The result of a call."""

    text: str
    call_id: str | None = None
    name: str | None = None  #: of the tool


#: Images and audio become parts here, each a struct with its own tag.
Part = TextPart | ReasoningPart | ToolCallPart | ToolResultPart


class Turn(Struct, frozen=True):
    """One message of a conversation. No parts at all: a message without content."""

    role: str  #: `system`, `user`, `assistant` or `tool`; a template may know others
    parts: tuple[Part, ...] = ()
    name: str | None = None  #: of the speaker
    is_list: bool = False  #: the client sent its content as a list, which some templates require

    @property
    def texts(self) -> list[str]:
        """The texts of the text parts, in order."""
        return [part.text for part in self.parts if isinstance(part, TextPart)]


def text_turn(role: str, text: str) -> Turn:
    """A turn that says one text."""
    return Turn(role, (TextPart(text),))


class Tool(Struct, frozen=True):
    """A tool that the model may call.

    `definition` is the JSON object that the client sent. Templates print it whole, and the order of
    its keys is part of the prompt.
    """

    name: str
    definition: dict[str, Any]


class ToolChoice(Struct, frozen=True):
    """Whether the model may or must call tools, and which ones."""

    mode: Literal["none", "auto", "required"] = "auto"
    names: tuple[str, ...] = ()  #: the only tools that it may call; empty: all of them


class Ask(Struct, frozen=True, kw_only=True):
    """One request, before a model has seen it. None means unset: a default applies.

    It holds either `turns` or `prompts`. A field of sampling that is added here is refused for
    every engine until its `Capabilities` name it.
    """

    task: Task = "chat"
    model: str | None = None  #: None: the first model served
    turns: list[Turn] = []
    prompts: list[str | list[int]] = []  #: raw text or token ids; each is a sequence of its own
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None  #: whether one answer may hold several calls
    reasoning: bool | None = None  #: whether the model thinks before it answers
    reasoning_effort: str | None = None
    splits_reasoning: bool | None = None  #: apart from the content; otherwise as it was written
    max_thinking_tokens: int | None = None
    logprobs: int | None = None  #: of each token, with so many of the likeliest others
    prompt_logprobs: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[int, float] | None = None
    max_tokens: int | None = None
    min_tokens: int | None = None
    n: int | None = None  #: choices for each prompt
    stop: list[str] | None = None
    stop_ids: list[int] | None = None  #: token ids that end the answer, besides the model's own
    include_stop: bool | None = None  #: the answer ends with the stop string that was met
    ignore_eos: bool | None = None
    priority: int | None = None  #: lower is earlier, among the requests of one client
    guide: Guide | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None


#: What an ask is about. It never comes from defaults.
SUBJECT = frozenset({"task", "turns", "prompts"})
_NOTHING = Ask()
_SETTINGS = tuple(name for name in Ask.__struct_fields__ if name not in SUBJECT)


def set_fields(ask: Ask) -> dict[str, Any]:
    """The settings of an ask that are set, by name: everything but what it is about."""
    return {name: value for name in _SETTINGS if (value := getattr(ask, name)) is not None}


def merged(ask: Ask, defaults: Ask) -> Ask:
    """`ask`, with every setting that it leaves unset taken from `defaults`."""
    if defaults == _NOTHING:  # nearly always, and the comparison takes almost no time
        return ask
    given = set_fields(defaults).items()
    return structs.replace(ask, **{k: v for k, v in given if getattr(ask, k) is None})
