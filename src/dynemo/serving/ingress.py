"""An ingress: the models that discovery names, served through remote instances."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from msgspec import DecodeError

from dynemo.connection.logged_peers import LoggedPeers
from dynemo.errors import DynemoError, Unavailable
from dynemo.foreign import msgpack_decoder
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
from dynemo.serving.source import LeftOut
from dynemo.wire import versions
from dynemo.wire.versions import negotiate, spoken_by

log = logging.getLogger("dynemo.ingress")

_RETRY_SECONDS = 2.0
_PROBE_SECONDS = 0.5
#: How long the card and the tokenizer of a model without instances stay in memory. If all workers
#: of a model restart at once, requests meanwhile get a 503 and no 404.
_IDLE_SECONDS = 600.0

_UNDECODABLE = (
    "Instance %s gets no requests: its record does not decode (%s). If its worker is of a later "
    "release, upgrade this ingress."
)

_decode_record = msgpack_decoder(InstanceRecord)


@dataclass(frozen=True)
class Planes:
    """The three planes of an ingress."""

    discovery: Discovery
    requests: RequestPlane
    responses: ResponseListener


class Ingress:
    """The models of one address, as discovery lists them. Made by `ingress`."""

    def __init__(
        self,
        address: EndpointName,
        planes: Planes,
        make_router: Callable[[], Router],
        migration_limit: int,
    ) -> None:
        #: By name. Models without instances stay for a while; their requests get a 503.
        self.models: dict[str, ServedModel] = {}
        self.appeared = asyncio.Event()  #: set when the first model is served
        self.is_listed = False  #: whether the first listing of discovery has been applied
        self._address = address
        self._planes = planes
        self._make_router = make_router
        self._migration_limit = migration_limit
        self._pools: dict[str, Pool] = {}
        self._identities: dict[str, str] = {}
        self._names: dict[str, tuple[str, str]] = {}  # of keys: model, instance
        self._left_out: dict[str, tuple[InstanceRecord, str]] = {}  # by key, with the reason
        self._undecodable = LoggedPeers()  # keys
        self._idle_since: dict[str, float] = {}  # models without instances
        self._lock = asyncio.Lock()

    async def watch(self) -> None:
        """Follows discovery, forever."""
        prefix = instances_prefix(self._address)
        async with aclosing(self._planes.discovery.watch(prefix)) as batches:
            async for changes in batches:
                for change in changes:
                    async with self._lock:
                        await self._apply(change)
                self.is_listed = True

    # ModelSource

    @property
    def connections(self) -> Mapping[str, str]:
        planes = self._planes
        return {"discovery": planes.discovery.trouble, "requests": planes.requests.trouble}

    @property
    def left_out(self) -> list[LeftOut]:
        found = self._left_out.values()
        return [LeftOut(record.instance.id, record.model, why) for record, why in found]

    def absence(self, model: str | None) -> str:
        if not self.is_listed:
            return "This server has just started, and does not know its workers yet."
        left_out = (each for each in self.left_out if model in (None, each.model))
        return next((f"Instance {each.id[:8]} is left out. {each.reason}" for each in left_out), "")

    async def probe(self) -> None:
        """Probes instances, forever, so that `/health` knows what a request would meet."""
        while True:
            await asyncio.sleep(_PROBE_SECONDS)
            due = [(pool, it) for pool in self._pools.values() for it in pool.to_probe()]
            await asyncio.gather(*(pool.probe(it) for pool, it in due))

    async def tend(self) -> None:
        """Tries, forever, to add the instances that were left out, and drops unused models.

        An instance is left out while its card cannot be read, or while another card has its
        model's name. An instance that speaks another protocol is left out too.
        """
        while True:
            await asyncio.sleep(_RETRY_SECONDS)
            self._drop_idle_models()
            for key in list(self._left_out):
                async with self._lock:
                    if (left_out := self._left_out.get(key)) is not None:
                        await self._add(key, left_out[0])

    async def _apply(self, change: Change) -> None:
        self._remove(change.key)
        if change.value is None:
            self._undecodable.forget(change.key)
            return
        try:
            record = _decode_record(change.value)
        except DecodeError as error:
            if self._undecodable.is_new(change.key):
                log.error(_UNDECODABLE, change.key.rpartition("/")[2], error)
            return
        self._undecodable.forget(change.key)
        await self._add(change.key, record)

    async def _add(self, key: str, record: InstanceRecord) -> None:
        try:
            negotiate(record.instance.id, spoken_by(record), versions.SPOKEN)
            pool = self._pools.get(record.model)
            is_other = pool is not None and self._identities[record.model] != record.identity
            if pool is None or (is_other and not len(pool)):
                pool = await self._open(record)
            elif is_other:
                raise Unavailable("Other instances of its model have another card.")
        except DynemoError as error:
            if key not in self._left_out:
                log.error("Instance %s gets no requests for now. %s", record.instance.id, error)
            self._left_out[key] = (record, str(error))
            return
        self._left_out.pop(key, None)
        self._idle_since.pop(record.model, None)
        pool.add(RemoteInstance(record, self._planes.requests, self._planes.responses))
        self._planes.responses.on_load[record.instance.id] = pool.reported
        self._names[key] = (record.model, record.instance.id)
        self.appeared.set()
        log.info("Instance %s of %s is available.", record.instance.id, record.model)

    def _remove(self, key: str) -> None:
        self._left_out.pop(key, None)
        model, instance_id = self._names.pop(key, ("", ""))
        if model:
            pool = self._pools[model]
            pool.remove(instance_id)
            self._planes.responses.on_load.pop(instance_id, None)
            if not len(pool):
                self._idle_since[model] = time.monotonic()
            log.info("Instance %s of %s has gone.", instance_id, model)

    def _drop_idle_models(self) -> None:
        """Drops models that have had no instance for long. The last one stays: a 503 that there is
        no instance is truer than a 404."""
        before = time.monotonic() - _IDLE_SECONDS
        for model, since in list(self._idle_since.items()):
            if since < before and len(self.models) > 1:
                for held in (self.models, self._pools, self._identities, self._idle_since):
                    del held[model]
                log.info("Dropped model %s: it had no instance for long.", model)

    async def _open(self, record: InstanceRecord) -> Pool:
        """A pool for a new model. Raises DynemoError if its card cannot be read."""
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
    tasks = [
        asyncio.create_task(work, name="ingress") for work in (it.watch(), it.tend(), it.probe())
    ]
    for task in tasks:
        task.add_done_callback(_log_failure)
    try:
        yield it
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _log_failure(task: "asyncio.Task[None]") -> None:
    """These tasks end only by cancellation; anything else is a bug."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("The task %s failed.", task.get_name(), exc_info=error)
