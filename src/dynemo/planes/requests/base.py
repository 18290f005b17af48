"""The request plane: one message per request, which the chosen instance accepts or refuses at once.
The answer arrives on the response plane.

An ingress has a `RequestPlane`, a worker a `RequestServer`. The adapters for NATS and for memory
are both; TCP has an adapter for each side.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from dynemo.connection.addresses import Dialable
from dynemo.messages.records import InstanceRecord, Load
from dynemo.messages.wire import Envelope

#: Seconds in which a worker must accept or refuse.
ASK_SECONDS = 2.0
#: How often the event loop must run in that time before it counts as over.
_TURNS = 8

_T = TypeVar("_T")

#: Gets an encoded Envelope. Returns to accept, raises a DynemoError to refuse.
OnRequest = Callable[[bytes], Awaitable[None]]


async def wait_for_reply(reply: "asyncio.Future[_T]", seconds: float) -> _T:
    """The reply. Raises TimeoutError if none arrives in that time.

    A busy event loop reads late, and the reply may already be in its socket. So only time counts in
    which the loop could have read it.
    """
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def tick(left: int) -> None:
        nonlocal timer
        if left:
            timer = loop.call_later(seconds / _TURNS, tick, left - 1)
        elif not reply.done():
            reply.set_exception(TimeoutError())

    timer = loop.call_later(seconds / _TURNS, tick, _TURNS - 1)
    try:
        return await reply
    finally:
        timer.cancel()


class RequestPlane(Protocol):
    @property
    def trouble(self) -> str:
        """Why no instance at all can be asked now, as sentences; else empty."""
        ...

    @property
    def max_request(self) -> int:
        """The longest encoded Request for an envelope; a longer one follows on its stream."""
        ...

    async def ask(
        self, record: InstanceRecord, envelope: Envelope, timeout: float = ASK_SECONDS
    ) -> None:
        """Returns when the instance has accepted. May be called for many at once.

        Raises the worker's refusal (Unavailable: busy, draining). Raises InstanceGone if nobody
        listens for that instance, and InstanceSilent if it does not reply in `timeout` seconds.
        Raises PlaneAway at once while the plane is down: then no other instance can be asked.
        """
        ...

    async def wait_until_up(self) -> None:
        """Returns when requests can be sent: at once, unless the plane is down. Set a deadline."""
        ...

    async def load(self, record: InstanceRecord, timeout: float = ASK_SECONDS) -> Load:
        """The instance's present load. Raises InstanceGone, PlaneAway."""
        ...


class RequestServer(Protocol):
    @property
    def reach(self) -> Dialable:
        """For the instance's record; empty if ingresses do not dial the worker."""
        ...

    @property
    def key(self) -> str:
        """For the instance's record; hex, or empty."""
        ...

    def serve(
        self, record: InstanceRecord, handler: OnRequest, load: Callable[[], Load] = Load
    ) -> AbstractAsyncContextManager[None]:
        """Takes requests for `record.instance` while entered. Entering returns when the plane
        knows it.

        `load` gives the load for a plane that answers that question itself.
        """
        ...
