"""The port of an engine adapter. One file an adapter; it translates names and types, no more."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from dynemo.messages.answer import Delta
from dynemo.messages.records import Capabilities, Load
from dynemo.messages.request import Request
from dynemo.messages.spec import EngineSpec


class Engine(Protocol):
    """A loaded engine, inside the engine host. Used from one event loop."""

    version: str
    device: str
    context_length: int  #: tokens that one sequence may hold
    slots: int  #: sequences that it computes at once
    capabilities: Capabilities

    def generate(self, request: Request) -> AsyncGenerator[Delta, None]:
        """The answer, in deltas; the last has `finish`. Called for many requests at once.

        The ids hold every token generated, a final EOS included. Closing the generator aborts the
        sequence within one decoding step, or one prefill chunk. Raises EngineError.
        """
        ...

    async def load(self) -> Load:
        """What it is busy with now."""
        ...


class Adapter(Protocol):
    """What an adapter's module offers. Entering loads the engine, leaving ends it.

    Entering raises ModelError, EngineNotInstalled, UsageError or EngineError.
    """

    def open_engine(self, spec: EngineSpec) -> AbstractAsyncContextManager[Engine]: ...


class Follower(Protocol):
    """What the module of an engine that runs on several nodes offers too."""

    async def follow(self, spec: EngineSpec, on_joined: Callable[[], None]) -> None:
        """Runs rank `spec.parallel.rank` (above 0) until its leader ends. Cancelling ends it.

        Calls `on_joined` once: this rank has loaded, and works for its leader. Raises as entering
        `open_engine` does, afterwards EngineError.
        """
        ...
