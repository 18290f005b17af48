"""Notices a NATS server that holds its connections open and does not answer.

nats-py notices it after 10 to 15 s; requests meet it before that.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nats.aio.client import Client

_EVERY_SECONDS = 1.0
_ANSWER_SECONDS = 2  # nats-py takes whole seconds


class Pulse:
    """`is_silent` while the server does not answer the pings of `watch`."""

    def __init__(self, client: "Callable[[], Client | None]") -> None:
        self.is_silent = False
        self._client = client

    async def watch(self) -> None:
        """Pings the server of the present client, forever."""
        from nats.errors import Error

        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            found = self._client()
            if found is None or not found.is_connected:
                self.is_silent = False  # it is away, and others say so
                continue
            try:
                await found.flush(_ANSWER_SECONDS)
                self.is_silent = False
            except (Error, OSError, TimeoutError):
                self.is_silent = found.is_connected
