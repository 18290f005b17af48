"""The interface for choosing an instance for a request. `modes/` has one file for each mode.

One router serves one model. It is pure and belongs to one event loop: no method waits, and two
threads must not call it at once. The cost of a call does not grow with the number of instances.
"""

import random
from collections.abc import Collection, Sequence
from importlib import import_module
from typing import Protocol

from dynemo.errors import UsageError
from dynemo.messages.records import Load
from dynemo.router.modes import MODES
from dynemo.spelling import unknown


class Router(Protocol):
    def __len__(self) -> int:
        """Returns the number of instances."""
        ...

    def add(self, instance_id: str) -> None:
        """Makes an instance available. Adding it again changes nothing."""
        ...

    def remove(self, instance_id: str) -> None:
        """Removes an instance. Its requests in flight count until they end.

        Removing an unknown instance changes nothing.
        """
        ...

    def choose(self, token_ids: Sequence[int], /, exclude: Collection[str] = ()) -> str | None:
        """Returns the id of an instance for a prompt, or None if none is left to choose.

        `exclude` holds instances that failed the request, or that cannot serve it. Pass a set if it
        is large.
        """
        ...

    def started(self, instance_id: str, token_ids: Sequence[int], /) -> None:
        """Records that the instance receives the prompt.

        Call it right after `choose`, without an await in between, so that the next choice counts
        it. Call `ended` exactly once afterwards, however the request ends.
        """
        ...

    def ended(self, instance_id: str) -> None: ...

    def reported(self, instance_id: str, load: Load) -> None:
        """Records the load that an instance reports, including the requests of this ingress."""
        ...


def make_router(mode: str, seed: int | None = None) -> Router:
    """Returns a router without instances. Equal seeds give equal choices.

    Raises UsageError for an unknown mode.
    """
    if mode not in MODES:
        raise UsageError(unknown("value", mode, MODES, place=" for --router-mode"))
    module = import_module(f"dynemo.router.modes.{MODES[mode]}")
    router: Router = module.make(random.Random(seed))
    return router
