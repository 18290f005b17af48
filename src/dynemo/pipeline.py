"""The one path: preprocess -> route -> instance -> postprocess."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

from dynemo.messages import Ask, Piece
from dynemo.runtime.instance import Answerer


@dataclass(frozen=True)
class ServedModel:
    name: str
    created: int  #: unix seconds
    context_length: int
    answerer: Answerer


@dataclass(frozen=True)
class Job:
    """An accepted ask: rendered, tokenized, within limits. Nothing runs yet."""

    id: str  #: hex, unique; HTTP answers with `chatcmpl-{id}`
    model: ServedModel
    prompt: str
    prompt_tokens: int
    n: int


class Pipeline:
    """All models that this process serves."""

    def __init__(self, models: Mapping[str, ServedModel], *, defaults: Ask) -> None: ...

    @property
    def models(self) -> Mapping[str, ServedModel]: ...

    @property
    def trouble(self) -> str:
        """Why a request could not be served now (`loading`, `draining`, ...), else empty."""
        ...

    def prepare(self, ask: Ask) -> Job:
        """Raises RequestError (UnknownModel, ContextLengthExceeded, UnsupportedField, ...).

        `ask.model` None means the only model, or the first.
        """
        ...

    def run(self, job: Job) -> AsyncGenerator[Piece, None]:
        """The answer's pieces, choices interleaved; each choice's last piece has `finish`.

        One piece covers whatever came since the last one was taken: it may stand for many tokens.
        Closing it (`aclosing`) cancels every choice inside the engine. Raises Unavailable before
        the first piece; EngineLost, EngineError or SlowReader at any time.
        """
        ...
