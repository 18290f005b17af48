"""What instances are busy with. Discovery is not told at each request, so each is asked."""

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

_SECONDS = 2.0  # for the answers of all
_AT_ONCE = 128  # a process may open some 1,000 files


class Loads:
    """Asks instances over the planes that their records name. Made by `loads`."""

    def __init__(self, config: Config, responses: ResponseListener, stack: AsyncExitStack) -> None:
        self.troubles: list[str] = []  #: why instances that are asked over NATS were not
        self._config = config
        self._stack = stack
        self._tcp = TcpRequests(responses, dialling_tls(config))
        self._nats: RequestPlane | None = None

    async def ask(self, records: Iterable[InstanceRecord]) -> dict[str, Load]:
        """By instance id; without those that have not answered in time."""
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

        asked = [(plane, record) for record in records if (plane := await self._plane(record))]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SECONDS), asyncio.TaskGroup() as tasks:
                for plane, record in asked:
                    tasks.create_task(ask_one(plane, record))
        return found

    async def _plane(self, record: InstanceRecord) -> RequestPlane | None:
        """None while it is not there."""
        if record.addresses or record.loopback:
            return self._tcp
        return None if self.troubles else await self._open_nats()

    async def _open_nats(self) -> RequestPlane | None:
        """Connects with the first instance that is asked over it."""
        if self._nats is None:
            try:
                self._nats = await self._stack.enter_async_context(open_nats(self._config))
            except UsageError as error:
                self.troubles = [str(error)]
        return self._nats


@asynccontextmanager
async def loads(config: Config) -> AsyncIterator[Loads]:
    """Leaving closes what was connected."""
    responses = ResponseListener(Dialable([], ""), Beat())  # nobody dials it
    async with AsyncExitStack() as stack:
        stack.push_async_callback(responses.close)
        yield Loads(config, responses, stack)
