"""The requirements of a request, and the instances that meet them. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import structs

from dynemo.errors import RequestError, UnsupportedField
from dynemo.messages.ask import Ask, Task
from dynemo.messages.records import Capabilities, Instance
from dynemo.messages.request import GUIDE_NAMES, Request, Sampling
from dynemo.spelling import quoted

NEUTRAL = Sampling()
SAMPLING = tuple(field.name for field in structs.fields(Sampling))

#: Fields of `Ask` that this program handles itself, for every engine. Any other field is a
#: requirement: every engine refuses a new field until its capabilities name it.
_HONOURED_HERE = frozenset({
    "task", "model", "turns", "prompts", "tools", "tool_choice", "parallel_tool_calls",
    "reasoning", "reasoning_effort", "splits_reasoning", "max_thinking_tokens",
    "add_generation_prompt", "continue_final_message", "chat_template_kwargs", "max_tokens", "n",
    "stop", "include_stop", "guide", "priority",
})  # fmt: skip
_NEEDED = tuple(name for name in Ask.__struct_fields__ if name not in _HONOURED_HERE)


@dataclass(frozen=True)
class Needs:
    """The requirements of a request, apart from room in the context."""

    task: Task
    fields: tuple[str, ...] = ()  #: fields of `Ask`: sampling, and `ignore_eos`
    guide: str = ""  #: the kind of a `Guide`, or ""
    control: bool = False  #: control tokens belong to its text
    is_continued: bool = False  #: the guide applies from within an answer

    def met_by(self, can: Capabilities) -> bool:
        return (
            self.task in can.tasks
            and set(self.fields).issubset(can.sampling)
            and (not self.guide or self.guide in can.guides)
            and (not self.is_continued or self.guide in can.continues)
            and (not self.control or can.gives == "tokens" or can.shows_control)
        )


def needs_of_ask(ask: Ask) -> Needs:
    """Returns the requirements of an ask. A field that is unset or neutral requires nothing."""
    fields = tuple(
        name
        for name in _NEEDED
        if (value := getattr(ask, name)) is not None
        and value is not False
        and value != getattr(NEUTRAL, name, None)
    )
    return Needs(ask.task, fields, ask.guide.kind if ask.guide is not None else "")


def needs_of_request(request: Request) -> Needs:
    if request.embed:
        return Needs("embed")
    sampling = request.sampling
    fields = [name for name in SAMPLING if getattr(sampling, name) != getattr(NEUTRAL, name)]
    fields += ["ignore_eos"] * request.ignore_eos
    fields += ["stop_ids"] * bool(request.client_stop_ids)
    fields += ["min_tokens"] * (request.min_tokens > 0)
    fields += ["logprobs"] * (request.logprobs is not None)
    fields += ["prompt_logprobs"] * (request.prompt_logprobs is not None)
    guide = request.guide.kind if request.guide is not None else ""
    is_continued = request.guide is not None and bool(request.guide.written)
    return Needs("chat", tuple(fields), guide, bool(request.shown), is_continued)


def capable_instances(needs: Needs, instances: Sequence[Instance], model: str) -> list[Instance]:
    """Returns the instances that meet all requirements.

    Raises RequestError. It names the first field that no instance supports, or that no instance
    supports together with the earlier fields.
    """
    left = [instance for instance in instances if needs.task in instance.capabilities.tasks]
    if not left:
        raise _other_task(needs.task, model)
    for name in needs.fields:
        engines = _engines(left)
        left = [instance for instance in left if name in instance.capabilities.sampling]
        if not left:
            raise UnsupportedField(f"The engine {engines} does not support '{name}'.", param=name)
    if needs.guide:
        engines = _engines(left)
        left = [instance for instance in left if needs.guide in instance.capabilities.guides]
        if not left:
            raise UnsupportedField(
                f"The engine {engines} cannot restrict its answer to a {GUIDE_NAMES[needs.guide]}.",
                param="guide",
            )
    return left


def _engines(instances: Sequence[Instance]) -> str:
    """Returns the engines' names as a message lists them: `a or b`."""
    return " or ".join(sorted({instance.engine for instance in instances}))


def _other_task(task: Task, model: str) -> RequestError:
    if task == "chat":
        message = f"The model {quoted(model)} was loaded for embeddings. Use POST /v1/embeddings."
    else:
        message = (
            f"The model {quoted(model)} was loaded to generate text, so it has no embeddings. "
            "Use an embedding model, or start it with out=llama_cpp and `-- --embeddings`."
        )
    return RequestError(message, param="model")
