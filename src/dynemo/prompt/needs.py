"""What a request needs of an engine, and which instances can give it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import structs

from dynemo.errors import RequestError, UnsupportedField
from dynemo.messages.ask import Ask, Task
from dynemo.messages.records import Capabilities, Instance
from dynemo.messages.request import Request, Sampling

NEUTRAL = Sampling()
SAMPLING = tuple(field.name for field in structs.fields(Sampling))

#: Fields of `Ask` that are honoured here, whichever engine answers. Any other field is a need: one
#: that is new is refused for every engine until its capabilities name it.
_HONOURED_HERE = frozenset({
    "task", "model", "turns", "prompts", "tools", "add_generation_prompt",
    "continue_final_message", "chat_template_kwargs", "max_tokens", "n", "stop", "guide",
})  # fmt: skip


@dataclass(frozen=True)
class Needs:
    """Besides room in the context."""

    task: Task
    fields: tuple[str, ...] = ()  #: of `Ask`: sampling, and `ignore_eos`
    guide: str = ""  #: a kind of `Guide`

    def met_by(self, can: Capabilities) -> bool:
        return (
            self.task in can.tasks
            and set(self.fields).issubset(can.sampling)
            and (not self.guide or self.guide in can.guides)
        )


def needs_of_ask(ask: Ask) -> Needs:
    """A field that is unset, or has the value that changes nothing, needs nothing."""
    fields = tuple(
        name
        for name in ask.__struct_fields__
        if name not in _HONOURED_HERE
        and (value := getattr(ask, name)) is not None
        and value != getattr(NEUTRAL, name, False)
    )
    return Needs(ask.task, fields, ask.guide.kind if ask.guide is not None else "")


def needs_of_request(request: Request) -> Needs:
    if request.embed:
        return Needs("embed")
    sampling = request.sampling
    fields = [name for name in SAMPLING if getattr(sampling, name) != getattr(NEUTRAL, name)]
    fields += ["ignore_eos"] * request.ignore_eos
    return Needs("chat", tuple(fields), request.guide.kind if request.guide is not None else "")


def able(needs: Needs, instances: Sequence[Instance], model: str) -> list[Instance]:
    """The instances that can give all of it. Raises RequestError, naming the first field that no
    instance has, or that no instance has together with the fields before it."""
    left = [one for one in instances if needs.task in one.capabilities.tasks]
    if not left:
        raise _other_task(needs.task, model)
    for name in needs.fields:
        engines = _named(left)
        left = [one for one in left if name in one.capabilities.sampling]
        if not left:
            raise UnsupportedField(f"{engines} does not support '{name}'.", param=name)
    if needs.guide:
        engines = _named(left)
        left = [one for one in left if needs.guide in one.capabilities.guides]
        if not left:
            raise UnsupportedField(
                f"{engines} cannot hold its answer to a {needs.guide}.", param="guide"
            )
    return left


def _named(instances: Sequence[Instance]) -> str:
    return f"The engine {' or '.join(sorted({one.engine for one in instances}))}"


def _other_task(task: Task, model: str) -> RequestError:
    if task == "chat":
        said = f"{model} was loaded for embeddings: POST /v1/embeddings asks for them."
    else:
        said = (
            f"{model} was loaded to answer, and gives no embeddings; a model for embeddings "
            "does, or out=llama_cpp with `-- --embeddings`."
        )
    return RequestError(said, param="model")
