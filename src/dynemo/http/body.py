"""How a request's body is read: bounded in size, in time, and in memory with all other bodies."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from dynemo.errors import BodyTooLarge, Overloaded
from dynemo.http.asgi import Event
from dynemo.http.errors import ClientGone
from dynemo.limits import BODIES_BYTES, BODY_BYTES, HUGE_BODY_BYTES, SMALL_BODY_BYTES

NextEvent = Callable[[int], Awaitable[Event]]


class BodyRoom:
    """The memory that is left for the bodies that a process holds and has not read into calls.

    The first bytes of each body (`SMALL_BODY_BYTES`) do not count. So small requests are answered
    even while others hold all of it.
    """

    __slots__ = ("_left", "arrived", "turn")

    def __init__(self, size: int = BODIES_BYTES) -> None:
        self._left = size
        self.arrived = 0  #: bytes of all bodies so far
        #: Of the huge body that is being read into a call, which takes up to ten times its memory.
        self.turn = asyncio.Lock()

    def take(self, size: int) -> None:
        """Raises Overloaded."""
        if size > self._left:
            raise Overloaded(
                "The server holds as many large request bodies as its memory allows. Send the "
                "request again later.",
                retry_after=5,
            )
        self._left -= size

    def give(self, size: int) -> None:
        self._left += size


@dataclass(slots=True)
class BodyReader:
    """Reads one body, and keeps its room until `release`."""

    room: BodyRoom
    limit: int = BODY_BYTES
    _held: int = 0
    _has_turn: bool = False

    async def read(self, next_event: NextEvent) -> bytes:
        """`next_event` gets the number of bytes that have arrived. A huge body then waits for its
        turn. Raises BodyTooLarge, Overloaded, ClientGone."""
        body = await self._read(next_event)
        if len(body) > HUGE_BODY_BYTES:
            await self.room.turn.acquire()
            self._has_turn = True
        return body

    async def _read(self, next_event: NextEvent) -> bytes:
        body = bytearray()
        try:
            while True:
                event = await next_event(len(body))
                if event["type"] == "http.disconnect":
                    raise ClientGone
                part: bytes = event.get("body", b"")
                self.room.arrived += len(part)
                self._reserve(len(body) + len(part))
                if not body and not event.get("more_body", False):
                    return part
                body += part
                if not event.get("more_body", False):
                    return bytes(body)
        except BaseException:
            body.clear()  # the traceback would keep it while the client gets the error
            self.release()
            raise

    def check(self, size: int) -> None:
        """Raises BodyTooLarge."""
        if size > self.limit:
            raise BodyTooLarge(f"The request body is larger than {self.limit} bytes.")

    def release(self) -> None:
        """Gives room and turn back: the body is gone. May be called again."""
        held, self._held = self._held, 0
        self.room.give(held)
        if self._has_turn:
            self._has_turn = False
            self.room.turn.release()

    def _reserve(self, size: int) -> None:
        self.check(size)
        more = size - SMALL_BODY_BYTES - self._held
        if more > 0:
            self.room.take(more)
            self._held += more
