"""The room of one model: which sequences its engines compute now, and which wait for their turn."""

from dataclasses import dataclass


@dataclass(slots=True)
class Place:
    """The place of one request among all others."""

    client: str = ""  #: clients take turns by this name
    deadline: float | None = None  #: loop time at which the request ends
