"""The request plane within one process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from msgspec import msgpack

from dynemo.errors import InstanceGone, PlaneAway
from dynemo.messages import Envelope, Load, Record
from dynemo.runtime.addresses import Dialable
from dynemo.runtime.requests.base import ASK_SECONDS, Handler


class MemoryRequests:
    """A `RequestPlane` and an `Intake`. `is_away` makes it fail as a server that is down does."""

    reach = Dialable([], "")
    key = ""

    def __init__(self, max_request: int = 1024 * 1024) -> None:
        self.max_request = max_request
        self.is_away = False
        self._served: dict[str, tuple[Handler, Callable[[], Load]]] = {}

    async def ask(self, record: Record, envelope: Envelope, timeout: float = ASK_SECONDS) -> None:
        handler, _ = self._find(record)
        try:
            async with asyncio.timeout(timeout):
                await handler(msgpack.encode(envelope))
        except TimeoutError:
            name = record.instance.id[:8]
            raise InstanceGone(f"Worker {name} did not reply in {timeout:g} s.") from None

    async def load(self, record: Record, timeout: float = ASK_SECONDS) -> Load:  # noqa: ARG002
        _, load = self._find(record)
        return load()

    @asynccontextmanager
    async def serve(
        self, record: Record, handler: Handler, load: Callable[[], Load] = Load
    ) -> AsyncIterator[None]:
        self._served[record.instance.id] = handler, load
        try:
            yield
        finally:
            del self._served[record.instance.id]

    def _find(self, record: Record) -> tuple[Handler, Callable[[], Load]]:
        if self.is_away:
            raise PlaneAway("The request plane is away.")
        name = record.instance.id
        if name not in self._served:
            raise InstanceGone(f"Nobody takes requests for worker {name[:8]}.")
        return self._served[name]
