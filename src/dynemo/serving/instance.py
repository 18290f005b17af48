"""The port for everything that answers requests."""

from collections.abc import AsyncGenerator, Sequence
from typing import Literal, NamedTuple, Protocol

from dynemo.connection.buffer import CancelReader
from dynemo.messages.answer import Delta
from dynemo.messages.records import Instance, Load
from dynemo.messages.request import Request

#: What a request can expect of an instance now. `silent`: its replies are late. `failing`: its
#: engine failed the last requests. `unreachable`: it cannot be asked, or cannot answer.
InstanceState = Literal["ready", "draining", "silent", "failing", "unreachable"]


class InstanceStatus(NamedTuple):
    """One instance now. `reason` has sentences, unless it is ready."""

    instance: Instance
    load: Load
    state: InstanceState = "ready"
    reason: str = ""


class Backend(Protocol):
    """The server of one model, as the pipeline sees it: a local engine host, or all workers that
    serve the model."""

    @property
    def instance(self) -> Instance | None:
        """Its description; None while it cannot take requests."""
        ...

    @property
    def slots(self) -> int:
        """The sequences that it computes at once for this process, up to a second ago."""
        ...

    @property
    def instance_classes(self) -> Sequence[Instance]:
        """One description for all instances with the same capabilities and context, with the slots
        of all of them. Empty if `instance` is None."""
        ...

    @property
    def load(self) -> Load:
        """The last load that it reported, up to a few seconds old."""
        ...

    @property
    def instances(self) -> Sequence[InstanceStatus]:
        """Each single instance, with its own load and state."""
        ...

    @property
    def restarts(self) -> int:
        """How often the engine of this process was restarted."""
        ...

    @property
    def stalls(self) -> int:
        """How often that was because it made no progress."""
        ...

    @property
    def moves(self) -> int:
        """How often an answer moved to another instance."""
        ...

    @property
    def trouble(self) -> str:
        """Why `instance` is None: a word (`loading`) or sentences; else empty."""
        ...

    def generate(
        self,
        request: Request,
        cancel_reader: CancelReader | None = None,
        deadline: float | None = None,
    ) -> AsyncGenerator[Delta, None]:
        """The answer. Its last delta has `finish`. Closing the generator at any time cancels the
        request, down to the engine. `cancel_reader` is called if the reader falls behind its bound.
        `deadline` is the loop time at which the caller closes it: no wait needs to be longer.

        Raises Unavailable (nothing was generated; another instance may be asked), EngineLost,
        EngineError or SlowReader.
        """
        ...
