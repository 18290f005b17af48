"""Notices a NATS server that holds its connections open and does not answer.

nats-py notices it after 10 to 15 s; requests meet it before that. A worker that does not reply in
that time is not at fault.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nats.aio.client import Client

_EVERY_SECONDS = 0.5
#: Without an answer to a ping for so long, the server counts as silent.
_SILENT_SECONDS = 2.0
#: An answer after more than this shows that the server was stuck.
_PROMPT_SECONDS = 0.4


class Pulse:
    """Pings the server of the present client, while `watch` runs."""

    def __init__(
        self,
        client: "Callable[[], Client | None]",
        on_silent: Callable[[], Awaitable[None]],
    ) -> None:
        """`on_silent` is called while the server is silent, at each ping."""
        self._client = client
        self._on_silent = on_silent
        self._waiting_since = 0.0  # for an answer, on the clock of `time.monotonic`; 0.0: no longer
        self._prompt_since = monotonic()  # from then on, each ping got its answer at once
        self._awake = asyncio.Event()  # cleared while the server is silent
        self._awake.set()

    @property
    def is_silent(self) -> bool:
        return not self._awake.is_set()

    async def wait_until_awake(self) -> None:
        await self._awake.wait()

    def was_prompt_since(self, moment: float) -> bool:
        """Whether the server has answered without delay from then until now."""
        return self._prompt_since <= moment and self._waited() <= _PROMPT_SECONDS

    def _waited(self) -> float:
        return monotonic() - self._waiting_since if self._waiting_since else 0.0

    async def watch(self) -> None:
        while True:
            client = self._client()
            if client is None or not client.is_connected:
                self.begin_anew()
            else:
                await self._ping(client)
                if self._waited() > _SILENT_SECONDS:
                    self._awake.clear()
                    await self._on_silent()
            await asyncio.sleep(_EVERY_SECONDS)

    async def _ping(self, client: "Client") -> None:
        # `flush` cancels its future when its time is over, and the late answer would then end the
        # client's task that reads.
        pong = asyncio.get_running_loop().create_future()
        sent = monotonic()
        pong.add_done_callback(partial(self._answered, sent))
        self._waiting_since = self._waiting_since or sent
        # The connection may have just gone, or have no room.
        with contextlib.suppress(OSError, AssertionError, TimeoutError):
            async with asyncio.timeout(_EVERY_SECONDS):
                await client._send_ping(pong)

    def _answered(self, sent: float, _: "asyncio.Future[bool]") -> None:
        if monotonic() - sent > _PROMPT_SECONDS:
            self._prompt_since = monotonic()
        self._waiting_since = 0.0
        self._awake.set()

    def begin_anew(self) -> None:
        """The connection is lost."""
        self._waiting_since = 0.0
        self._prompt_since = monotonic()
        self._awake.set()
