"""The one path: preprocess -> route -> instance -> postprocess."""

from collections.abc import AsyncGenerator, Mapping

from dynemo.messages import Ask, Piece


class Job:
    """An accepted ask: rendered, tokenized, within limits. Nothing runs yet."""

    model: str
    prompt: str
    prompt_tokens: int
    n: int


class Pipeline:
    """All models that this process serves."""

    def __init__(self, models: Mapping[str, object], *, defaults: Ask) -> None: ...

    @property
    def models(self) -> Mapping[str, object]: ...

    def prepare(self, ask: Ask) -> Job:
        """Raises RequestError (UnknownModel, ContextLengthExceeded, UnsupportedField, ...)."""
        ...

    def run(self, job: Job) -> AsyncGenerator[Piece, None]:
        """The answer's pieces, choices interleaved; each choice's last piece has `finish`.

        One piece covers whatever came since the last one was taken: it may stand for many tokens.
        Closing it (`aclosing`) cancels every choice inside the engine.
        """
        ...
