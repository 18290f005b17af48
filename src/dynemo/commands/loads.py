"""Asks instances for their load, which they do not write into discovery."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

from dynemo.app.networking import dialling_tls, open_nats
from dynemo.app.settings.options import Config
from dynemo.connection.addresses import Dialable
from dynemo.connection.heartbeat import Beat
from dynemo.errors import DynemoError, PlaneAway, UsageError
from dynemo.messages.records import InstanceRecord, Load
from dynemo.planes.requests.base import RequestPlane
from dynemo.planes.requests.tcp import TcpRequests
from dynemo.planes.responses.listen import ResponseListener

_SECONDS = 2.0  # for all answers together
_AT_ONCE = 128  # a process may open some 1,000 files


class Loads:
    """Asks instances over the planes that their records name. Made by `loads`."""

    def __init__(self, config: Config, responses: ResponseListener, stack: AsyncExitStack) -> None:
        self.troubles: list[str] = []  #: why instances could not be asked over NATS
        self._config = config
        self._stack = stack
        self._tcp = TcpRequests(responses, dialling_tls(config))
        self._nats: RequestPlane | None = None

    async def ask(self, records: Iterable[InstanceRecord]) -> dict[str, Load]:
        """The loads by instance id, without instances that do not answer in time."""
        self.troubles = []
        found: dict[str, Load] = {}
        gate = asyncio.Semaphore(_AT_ONCE)

        async def ask_one(plane: RequestPlane, record: InstanceRecord) -> None:
            try:
                async with gate:
                    found[record.instance.id] = await plane.load(record)
            except PlaneAway as error:
                self.troubles = [str(error)]
            except (DynemoError, ValueError):  # a record may hold anything, its key too
                pass

        asked = [(plane, record) for record in records if (plane := await self.plane(record))]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SECONDS), asyncio.TaskGroup() as tasks:
                for plane, record in asked:
                    tasks.create_task(ask_one(plane, record))
        return found

    async def plane(self, record: InstanceRecord) -> RequestPlane | None:
        """The plane that reaches the instance; None if NATS cannot be reached."""
        if record.addresses or record.loopback:
            return self._tcp
        return None if self.troubles else await self._open_nats()

    async def _open_nats(self) -> RequestPlane | None:
        """Connects when the first instance needs it."""
        if self._nats is None:
            try:
                self._nats = await self._stack.enter_async_context(open_nats(self._config))
            except UsageError as error:
                self.troubles = [str(error)]
        return self._nats


@asynccontextmanager
async def loads(config: Config) -> AsyncIterator[Loads]:
    """Closes all connections on leaving."""
    responses = ResponseListener(Dialable([], ""), Beat())  # no worker dials it
    async with AsyncExitStack() as stack:
        stack.push_async_callback(responses.close)
        yield Loads(config, responses, stack)
