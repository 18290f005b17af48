"""The request plane within one process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from msgspec import msgpack

from dynemo.connection.addresses import Dialable
from dynemo.errors import InstanceGone, InstanceSilent, PlaneAway
from dynemo.messages.records import InstanceRecord, Load
from dynemo.messages.wire import Envelope
from dynemo.planes.requests.base import ASK_SECONDS, OnRequest


class MemoryRequests:
    """A `RequestPlane` and a `RequestServer`. `is_away`: it fails like a server that is down."""

    reach = Dialable([], "")
    key = ""

    def __init__(self, max_request: int = 1024 * 1024) -> None:
        self.max_request = max_request
        self.is_away = False
        self._handlers: dict[str, OnRequest] = {}
        self._loads: dict[str, Callable[[], Load]] = {}

    @property
    def trouble(self) -> str:
        return "The request plane is away." if self.is_away else ""

    async def ask(
        self, record: InstanceRecord, envelope: Envelope, timeout: float = ASK_SECONDS
    ) -> None:
        self._check(record)
        try:
            async with asyncio.timeout(timeout):
                await self._handlers[record.instance.id](msgpack.encode(envelope))
        except TimeoutError:
            name = record.instance.id[:8]
            raise InstanceSilent(f"Worker {name} did not reply in {timeout:g} s.") from None

    async def wait_until_up(self) -> None:
        while self.is_away:  # noqa: ASYNC110 (tests set it)
            await asyncio.sleep(0.02)

    async def load(self, record: InstanceRecord, timeout: float = ASK_SECONDS) -> Load:  # noqa: ARG002
        self._check(record)
        return self._loads[record.instance.id]()

    @asynccontextmanager
    async def serve(
        self, record: InstanceRecord, handler: OnRequest, load: Callable[[], Load] = Load
    ) -> AsyncIterator[None]:
        self._handlers[record.instance.id] = handler
        self._loads[record.instance.id] = load
        try:
            yield
        finally:
            del self._handlers[record.instance.id], self._loads[record.instance.id]

    def _check(self, record: InstanceRecord) -> None:
        if self.is_away:
            raise PlaneAway("The request plane is away.")
        name = record.instance.id
        if name not in self._handlers:
            raise InstanceGone(f"Nobody takes requests for worker {name[:8]}.")
