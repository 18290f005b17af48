"""The request plane: one message per request, to the instance that was picked, accepted or refused
at once. The answer comes on the response plane.

An ingress holds a `RequestPlane`, a worker a `RequestServer`. NATS and the memory adapter are both;
over TCP each has its own side.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from dynemo.connection.addresses import Dialable
from dynemo.messages.records import InstanceRecord, Load
from dynemo.messages.wire import Envelope

#: Seconds in which a worker has to accept or to refuse.
ASK_SECONDS = 2.0
#: How often the event loop looks for a reply in that time, at least.
_LOOKS = 8

_T = TypeVar("_T")

#: Gets an encoded Envelope. Returns to accept, raises a DynemoError to refuse.
OnRequest = Callable[[bytes], Awaitable[None]]


async def wait_for_reply(reply: "asyncio.Future[_T]", seconds: float) -> _T:
    """The reply. Raises TimeoutError where none has come in that time.

    A loop that is busy with other things listens late, and what it has not heard yet may lie in
    its socket: only time in which it could have heard counts.
    """
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def look(left: int) -> None:
        nonlocal timer
        if left:
            timer = loop.call_later(seconds / _LOOKS, look, left - 1)
        elif not reply.done():
            reply.set_exception(TimeoutError())

    timer = loop.call_later(seconds / _LOOKS, look, _LOOKS - 1)
    try:
        return await reply
    finally:
        timer.cancel()


class RequestPlane(Protocol):
    @property
    def max_request(self) -> int:
        """The longest encoded Request that an envelope carries; a longer one goes on its stream."""
        ...

    async def ask(
        self, record: InstanceRecord, envelope: Envelope, timeout: float = ASK_SECONDS
    ) -> None:
        """Returns once the instance has accepted. May be called for many at once.

        Raises what the worker refused with (Unavailable: busy, draining), InstanceGone (nobody
        listens for that instance), InstanceSilent (it did not reply in `timeout` seconds), or
        PlaneAway (at once, while the plane itself is away: no other can be asked either).
        """
        ...

    async def load(self, record: InstanceRecord, timeout: float = ASK_SECONDS) -> Load:
        """What the instance is busy with now, as it says itself. Raises InstanceGone, PlaneAway."""
        ...


class RequestServer(Protocol):
    @property
    def reach(self) -> Dialable:
        """For the instance's record; empty where requests do not come by dialling."""
        ...

    @property
    def key(self) -> str:
        """For the instance's record; hex, or empty."""
        ...

    def serve(
        self, record: InstanceRecord, handler: OnRequest, load: Callable[[], Load] = Load
    ) -> AbstractAsyncContextManager[None]:
        """Takes requests for `record.instance` while entered; entered once the plane knows it.

        `load` is told to who asks for it, where the plane carries more than requests.
        """
        ...
