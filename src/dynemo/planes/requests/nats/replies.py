"""The messages of one client that wait for a reply."""

import asyncio
import contextlib
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING

from dynemo.errors import PlaneAway

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg


class PendingReply:
    """A message, and its reply once it arrives."""

    def __init__(self, subject: str, body: bytes) -> None:
        self.subject = subject
        self.body = body
        self.reply: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()

    def fail(self, error: PlaneAway) -> None:
        if not self.reply.done():
            self.reply.set_exception(error)


class PendingReplies:
    """By the last part of the subjects of their replies."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._all: dict[str, PendingReply] = {}

    @contextlib.contextmanager
    def expect(self, subject: str, body: bytes) -> Iterator[tuple[str, PendingReply]]:
        """Waits for a reply while entered. Gives its number."""
        number = str(next(self._numbers))
        pending = self._all[number] = PendingReply(subject, body)
        try:
            yield number, pending
        finally:
            del self._all[number]

    async def take(self, message: "Msg") -> None:
        """A reply has arrived."""
        pending = self._all.get(message.subject.rpartition(".")[2])
        if pending is not None and not pending.reply.done():
            pending.reply.set_result(message)

    def fail(self, error: PlaneAway) -> None:
        for pending in self._all.values():
            pending.fail(error)

    async def send_again(self, client: "Client", inbox: str) -> None:
        """Sends all messages again: they or their replies may be lost."""
        from nats.errors import Error

        for number, pending in list(self._all.items()):
            with contextlib.suppress(Error):
                if not pending.reply.done():
                    reply = f"{inbox}.{number}"
                    await client.publish(pending.subject, pending.body, reply=reply)
