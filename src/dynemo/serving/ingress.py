"""An ingress: the models that discovery names, served through remote instances."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from msgspec import DecodeError, msgpack

from dynemo.errors import DynemoError, Unavailable
from dynemo.messages.records import InstanceRecord
from dynemo.planes.discovery.base import Change, instances_prefix
from dynemo.planes.discovery.discovery import Discovery
from dynemo.planes.names import EndpointName
from dynemo.planes.requests.base import RequestPlane
from dynemo.planes.responses.listen import ResponseListener
from dynemo.prompt.card.card import Card
from dynemo.prompt.card.wire import unpack_card
from dynemo.router.router import Router
from dynemo.serving.migration import text_codec
from dynemo.serving.pipeline import ServedModel
from dynemo.serving.pool import Pool
from dynemo.serving.remote import RemoteInstance

log = logging.getLogger("dynemo.ingress")

_RETRY_SECONDS = 2.0
#: After which the card and the tokenizer of a model without instances are let go of. All workers of
#: a model may be started again at once, and not even a request need see more than a 503 of that.
_IDLE_SECONDS = 600.0

_decode_record = msgpack.Decoder(InstanceRecord).decode


@dataclass(frozen=True)
class Planes:
    """What an ingress stands on."""

    discovery: Discovery
    requests: RequestPlane
    responses: ResponseListener


class Ingress:
    """The models of one address, kept as discovery says. Made by `ingress`."""

    def __init__(
        self,
        address: EndpointName,
        planes: Planes,
        make_router: Callable[[], Router],
        migration_limit: int,
    ) -> None:
        #: By name; those that have lost all instances stay for a while, and answer 503.
        self.models: dict[str, ServedModel] = {}
        self.appeared = asyncio.Event()  #: the first model is there
        self._address = address
        self._planes = planes
        self._make_router = make_router
        self._migration_limit = migration_limit
        self._pools: dict[str, Pool] = {}
        self._identities: dict[str, str] = {}
        self._names: dict[str, tuple[str, str]] = {}  # of keys: model, instance
        self._left_out: dict[str, InstanceRecord] = {}  # by key
        self._idle_since: dict[str, float] = {}  # models without instances
        self._lock = asyncio.Lock()

    async def watch(self) -> None:
        """Follows discovery, for ever."""
        prefix = instances_prefix(self._address)
        async with aclosing(self._planes.discovery.watch(prefix)) as batches:
            async for changes in batches:
                for change in changes:
                    async with self._lock:
                        await self._apply(change)

    async def tend(self) -> None:
        """Takes in, for ever, what had to be left out: its card could not be read, or its model's
        last instance of another card has only just gone. Lets go of what nobody uses any more."""
        while True:
            await asyncio.sleep(_RETRY_SECONDS)
            self._let_go()
            for key in list(self._left_out):
                async with self._lock:
                    if (record := self._left_out.get(key)) is not None:
                        await self._take_in(key, record)

    async def _apply(self, change: Change) -> None:
        if change.value is None:
            self._forget(change.key)
            return
        try:
            record = _decode_record(change.value)
        except DecodeError as error:
            log.warning("%s does not decode: %s; passed over", change.key, error)
            return
        self._forget(change.key)
        await self._take_in(change.key, record)

    async def _take_in(self, key: str, record: InstanceRecord) -> None:
        try:
            pool = self._pools.get(record.model)
            is_other = pool is not None and self._identities[record.model] != record.identity
            if pool is None or (is_other and not len(pool)):
                pool = await self._open(record)
            elif is_other:
                raise Unavailable("others of its model have another card")
        except DynemoError as error:
            if key not in self._left_out:
                log.error("instance %s is left out for now: %s", record.instance.id, error)
            self._left_out[key] = record
            return
        self._left_out.pop(key, None)
        self._idle_since.pop(record.model, None)
        pool.add(RemoteInstance(record, self._planes.requests, self._planes.responses))
        self._names[key] = (record.model, record.instance.id)
        self.appeared.set()
        log.info("instance %s of %s has come", record.instance.id, record.model)

    def _forget(self, key: str) -> None:
        self._left_out.pop(key, None)
        model, instance_id = self._names.pop(key, ("", ""))
        if model:
            pool = self._pools[model]
            pool.remove(instance_id)
            if not len(pool):
                self._idle_since[model] = time.monotonic()
            log.info("instance %s of %s is gone", instance_id, model)

    def _let_go(self) -> None:
        """Of models that have had no instance for long. The last one stays: its requests are told
        that there is none now, and not that there never was such a model."""
        before = time.monotonic() - _IDLE_SECONDS
        for model, since in list(self._idle_since.items()):
            if since < before and len(self.models) > 1:
                for held in (self.models, self._pools, self._identities, self._idle_since):
                    del held[model]
                log.info("%s is forgotten: it had no instance for long", model)

    async def _open(self, record: InstanceRecord) -> Pool:
        """A pool for a model that is new here. Raises DynemoError where its card cannot be read."""
        data = await self._planes.discovery.get_blob(record.card)
        card: Card = await asyncio.to_thread(unpack_card, data)
        pool = Pool(self._make_router(), text_codec(card.tokenizer), self._migration_limit)
        self._pools[record.model] = pool
        self._identities[record.model] = record.identity
        self.models[record.model] = ServedModel(record.model, int(time.time()), card, pool)
        return pool


@asynccontextmanager
async def ingress(
    address: EndpointName,
    planes: Planes,
    *,
    make_router: Callable[[], Router],
    migration_limit: int,
) -> AsyncIterator[Ingress]:
    """Follows discovery while entered."""
    it = Ingress(address, planes, make_router, migration_limit)
    tasks = [asyncio.create_task(work, name="ingress") for work in (it.watch(), it.tend())]
    for task in tasks:
        task.add_done_callback(_tell)
    try:
        yield it
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _tell(task: "asyncio.Task[None]") -> None:
    """These tasks end only when they are cancelled; anything else is our own mistake."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("%s ended", task.get_name(), exc_info=error)
