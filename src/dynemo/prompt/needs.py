"""What a request needs of who answers it, and which of those that are there can give it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from msgspec import structs

from dynemo.errors import RequestError, UnsupportedField
from dynemo.messages import Capabilities, Guide, Instance, Request, Sampling

NEUTRAL = Sampling()
SAMPLING = structs.fields(Sampling)


@dataclass(frozen=True)
class Needs:
    """Besides room in the context."""

    task: Literal["chat", "embed"]
    fields: tuple[str, ...] = ()  #: of `Sampling`, and `ignore_eos`
    guide: str = ""  #: a kind of `Guide`

    def met_by(self, can: Capabilities) -> bool:
        return (
            self.task in can.tasks
            and set(self.fields).issubset(can.sampling)
            and (not self.guide or self.guide in can.guides)
        )


def needs_of(request: Request) -> Needs:
    if request.embed:
        return Needs("embed")
    return chat_needs(request.sampling, request.guide, ignore_eos=request.ignore_eos)


def chat_needs(sampling: Sampling, guide: Guide | None, *, ignore_eos: bool) -> Needs:
    """A field that has its neutral value needs nothing."""
    fields = [
        field.name
        for field in SAMPLING
        if getattr(sampling, field.name) != getattr(NEUTRAL, field.name)
    ]
    fields += ["ignore_eos"] * ignore_eos
    return Needs("chat", tuple(fields), guide.kind if guide is not None else "")


def able(needs: Needs, kinds: Sequence[Instance], model: str) -> list[Instance]:
    """Those of `kinds` that can give all of it. Raises RequestError, naming the first field that
    none of them has, or none that has the fields before it."""
    left = [kind for kind in kinds if needs.task in kind.capabilities.tasks]
    if not left:
        raise _other_task(needs.task, model)
    for name in needs.fields:
        engines = _named(left)
        left = [kind for kind in left if name in kind.capabilities.sampling]
        if not left:
            raise UnsupportedField(f"{engines} has no {name!r}.", param=name)
    if needs.guide:
        engines = _named(left)
        left = [kind for kind in left if needs.guide in kind.capabilities.guides]
        if not left:
            raise UnsupportedField(
                f"{engines} cannot hold its answer to a {needs.guide}.", param="response_format"
            )
    return left


def _named(kinds: Sequence[Instance]) -> str:
    return f"The engine {' or '.join(sorted({kind.engine for kind in kinds}))}"


def _other_task(task: str, model: str) -> RequestError:
    if task == "chat":
        said = f"{model} was loaded for embeddings: POST /v1/embeddings asks for them."
    else:
        said = (
            f"{model} was loaded to answer, and gives no embeddings; a model for embeddings "
            "does, or out=llama_cpp with `-- --embeddings`."
        )
    return RequestError(said, param="model")
