"""The interface of an engine adapter. An adapter only translates names and types."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from dynemo.messages.answer import Delta
from dynemo.messages.records import Capabilities, Load
from dynemo.messages.request import Request
from dynemo.messages.spec import EngineSpec


class Engine(Protocol):
    """A loaded engine inside the engine host. Only one event loop uses it."""

    version: str
    device: str
    context_length: int  #: tokens per sequence, at most
    slots: int  #: sequences that it computes at the same time
    capabilities: Capabilities

    def generate(self, request: Request) -> AsyncGenerator[Delta, None]:
        """Yields the answer in deltas; the last one has `finish`. Many requests may run at once.

        The ids include every generated token, even a final EOS. Closing the generator aborts the
        sequence within one decoding step or one prefill chunk. Raises EngineError.
        """
        ...

    async def load(self) -> Load:
        """Returns the engine's current load."""
        ...


class Adapter(Protocol):
    """The interface of an adapter's module. The context loads the engine, and ends it on exit.

    Entering it raises ModelError, EngineNotInstalled, UsageError or EngineError.
    """

    def open_engine(self, spec: EngineSpec) -> AbstractAsyncContextManager[Engine]: ...


class Follower(Protocol):
    """An additional interface for engines that run on several nodes."""

    async def follow(self, spec: EngineSpec, on_joined: Callable[[], None]) -> None:
        """Runs rank `spec.parallel.rank` (above 0) until its leader ends.

        Cancelling it ends the rank.

        Calls `on_joined` once, when this rank has loaded and serves its leader. Before that it
        raises the errors of `open_engine`, afterwards EngineError.
        """
        ...
