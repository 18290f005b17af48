"""The port behind which everything that answers stands."""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from dynemo.connection.buffer import CancelReader
from dynemo.messages.answer import Delta
from dynemo.messages.records import Instance, Load
from dynemo.messages.request import Request


class Backend(Protocol):
    """What answers for one model, as the pipeline sees it: a local engine host, or all the workers
    that serve it."""

    @property
    def instance(self) -> Instance | None:
        """What it said of itself, or None while it cannot take requests."""
        ...

    @property
    def instance_classes(self) -> Sequence[Instance]:
        """What those can that take requests: one for all that can do the same, with the slots of
        all of them. Empty where `instance` is None."""
        ...

    @property
    def load(self) -> Load:
        """As last reported; up to a few seconds old."""
        ...

    @property
    def instances(self) -> Sequence[tuple[Instance, Load]]:
        """Each that can take requests, with its own load: `instance` and `load`, taken apart."""
        ...

    @property
    def restarts(self) -> int:
        """How often the engine of this process was started again."""
        ...

    @property
    def moves(self) -> int:
        """How often an answer has gone on with another instance."""
        ...

    @property
    def trouble(self) -> str:
        """Why `instance` is None (`loading`, `engine ended: ...`), else empty."""
        ...

    def generate(
        self, request: Request, cancel_reader: CancelReader | None = None
    ) -> AsyncGenerator[Delta, None]:
        """The answer. The last delta carries `finish`. Closing the generator cancels the request,
        all the way into the engine, and may be done at any time. `cancel_reader` is called if the
        reader falls behind its bound.

        Raises Unavailable (nothing was generated, another instance may be asked), EngineLost,
        EngineError or SlowReader.
        """
        ...
