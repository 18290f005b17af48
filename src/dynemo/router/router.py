"""The choice of an instance for a request: the port, and the four ways behind it.

    random        each with the same chance
    round-robin   one after the other
    least-loaded  the fewest requests, own and reported
    prefix        the one that has computed most of the prompt already, weighed against its load

One router serves one model. It is pure and made for one event loop: no method waits, and none may
be called from two threads at once. What a call costs does not grow with the number of instances.
"""

import random
from collections.abc import Collection, Sequence
from typing import Protocol

from dynemo.errors import UsageError
from dynemo.messages.records import Load
from dynemo.router.modes import LeastLoaded, Prefix, Random, RoundRobin
from dynemo.router.names import MODES
from dynemo.spelling import unknown


class Router(Protocol):
    def __len__(self) -> int:
        """Instances to choose among."""
        ...

    def add(self, instance_id: str) -> None:
        """It may be chosen from now on. Adding it again changes nothing."""
        ...

    def remove(self, instance_id: str) -> None:
        """It is not chosen any more; its requests under way still count until they end.

        Removing what is not there changes nothing.
        """
        ...

    def choose(self, token_ids: Sequence[int], /, exclude: Collection[str] = ()) -> str | None:
        """An instance for a prompt, or None where all are excluded, or there are none.

        `exclude`: those that the request failed on, or that cannot honour it; a set where they
        are many.
        """
        ...

    def started(self, instance_id: str, token_ids: Sequence[int], /) -> None:
        """The instance is given the prompt. Called right after `choose`, before any wait, so that
        the next choice knows of it; `ended` follows exactly once, whatever comes of the request.
        """
        ...

    def ended(self, instance_id: str) -> None: ...

    def reported(self, instance_id: str, load: Load) -> None:
        """What an instance said of itself. It includes what this ingress has asked of it."""
        ...


def make_router(mode: str, seed: int | None = None) -> Router:
    """A router without instances. The same seed makes the same choices.

    Raises UsageError for a mode that does not exist.
    """
    generator = random.Random(seed)
    match mode:
        case "random":
            return Random(generator.random)
        case "round-robin":
            return RoundRobin()
        case "least-loaded":
            return LeastLoaded(generator.random)
        case "prefix":
            return Prefix(generator.random, generator.getrandbits(60))
    raise UsageError(unknown("value", mode, MODES, place=" for --router-mode"))
