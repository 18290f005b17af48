"""The port through which a pipeline learns about the planes of its ingress."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from dynemo.serving.served import ServedModel


class LeftOut(NamedTuple):
    """A registered instance that gets no requests."""

    id: str
    model: str
    reason: str  #: sentences


class ModelSource(Protocol):
    @property
    def connections(self) -> Mapping[str, str]:
        """By plane (`discovery`, `requests`): why it does not work now, or an empty text.

        Without discovery, the known instances are still asked. Without requests, none is.
        """
        ...

    @property
    def left_out(self) -> Sequence[LeftOut]: ...

    @property
    def bad_records(self) -> int:
        """Records of discovery that could not be used, since the start."""
        ...

    def choose(self, model: ServedModel) -> ServedModel:
        """The generation of a model that gets a new request."""
        ...

    def generations(self, model: ServedModel) -> Sequence[ServedModel]:
        """All generations of a model, the newest first."""
        ...

    def absence(self, model: str | None) -> str:
        """Why a model is not served yet, in sentences; empty if no instance has that name. None
        stands for any model."""
        ...


class Complete:
    """The source of a process that has its engine itself: no model can come later."""

    connections: Mapping[str, str] = {}
    left_out: Sequence[LeftOut] = ()
    bad_records = 0

    def choose(self, model: ServedModel) -> ServedModel:
        return model

    def generations(self, model: ServedModel) -> Sequence[ServedModel]:
        return [model]

    def absence(self, model: str | None) -> str:  # noqa: ARG002
        return ""
