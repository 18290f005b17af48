"""A model that a process serves."""

from dataclasses import dataclass, field

from dynemo.prompt.card.card import Card
from dynemo.serving.instance import Backend
from dynemo.serving.room import Room


@dataclass(frozen=True)
class ServedModel:
    name: str
    created: int  #: unix seconds
    card: Card
    backend: Backend
    #: The sequences of its requests that run, and those that wait.
    room: Room = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "room", Room(self.backend))

    @property
    def context_length(self) -> int:
        """Tokens that one sequence may hold; the model's own limit until the engine has said."""
        instance = self.backend.instance
        return instance.context_length if instance is not None else self.card.context_length
