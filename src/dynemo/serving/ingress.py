"""An ingress: the models that discovery names, served through remote instances."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from msgspec import DecodeError

from dynemo.connection.logged_peers import LoggedPeers
from dynemo.errors import DynemoError, ModelError
from dynemo.limits import INSTANCES
from dynemo.messages.records import InstanceRecord
from dynemo.planes.discovery.base import Change, instances_prefix
from dynemo.planes.discovery.discovery import Discovery
from dynemo.planes.discovery.records import read_record
from dynemo.planes.names import EndpointName
from dynemo.planes.requests.base import RequestPlane
from dynemo.planes.responses.listen import ResponseListener
from dynemo.prompt.card.card import Card
from dynemo.prompt.card.wire import unpack_card
from dynemo.router.router import Router
from dynemo.serving.generations import ServedGeneration, ServedGenerations
from dynemo.serving.migration import text_codec
from dynemo.serving.pool import Pool
from dynemo.serving.remote import RemoteInstance
from dynemo.serving.served import ServedModel
from dynemo.serving.source import LeftOut
from dynemo.spelling import quoted
from dynemo.tasks import kept_running
from dynemo.wire import versions
from dynemo.wire.versions import negotiate, spoken_by

log = logging.getLogger("dynemo.ingress")

_RETRY_SECONDS = 2.0
_PROBE_SECONDS = 0.5
#: How long the card and the tokenizer of a model without instances stay in memory. If all workers
#: of a model restart at once, requests meanwhile get a 503 and no 404.
_IDLE_SECONDS = 600.0

_BAD_RECORD = (
    "Instance %s gets no requests: its record cannot be used (%s). If its worker is of a later "
    "release, upgrade this ingress."
)
_BAD_CARDS = 256


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
        self._generations = ServedGenerations()
        #: By name. Models without instances stay for a while; their requests get a 503.
        self.models = self._generations.models
        self.appeared = asyncio.Event()  #: set when the first model is served
        self.is_listed = False  #: whether the first listing of discovery has been applied
        self._address = address
        self._planes = planes
        self._make_router = make_router
        self._migration_limit = migration_limit
        self._served: dict[str, tuple[ServedGeneration, str]] = {}  # of keys; also the instance
        self._left_out: dict[str, tuple[InstanceRecord, str]] = {}  # by key, with the reason
        #: Records that could not be used. Each bad value counts once.
        self.bad_records = 0
        self._fault = ""  # of a task that has failed
        self._bad_keys = LoggedPeers()
        self._bad_cards: dict[str, DynemoError] = {}  # by their hash
        self._lock = asyncio.Lock()

    async def watch(self) -> None:
        """Follows discovery, forever. It may run again after a fault."""
        prefix = instances_prefix(self._address)
        known = {*self._served, *self._left_out}  # of a run before
        async with aclosing(self._planes.discovery.watch(prefix)) as batches:
            async for changes in batches:
                self._fault = ""
                gone = known - {change.key for change in changes}
                known = set()
                for change in [*(Change(key, None) for key in gone), *changes]:
                    async with self._lock:
                        await self._apply(change)
                self.is_listed = True

    # ModelSource

    @property
    def connections(self) -> Mapping[str, str]:
        return {"discovery": self.trouble, "requests": self._planes.requests.trouble}

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
            pools = [each.pool for each in self._generations]
            due = [(pool, it) for pool in pools for it in pool.to_probe()]
            await asyncio.gather(*(pool.probe(it) for pool, it in due))

    def choose(self, model: ServedModel) -> ServedModel:
        return self._generations.choose(model)

    def generations(self, model: ServedModel) -> Sequence[ServedModel]:
        return self._generations.of(model.name)

    @property
    def trouble(self) -> str:
        """Why this ingress may not know all instances now, as a sentence; else empty."""
        return self._fault or self._planes.discovery.trouble

    def failed(self, fault: str) -> None:
        """A task has failed, and starts again."""
        self._fault = fault

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
            self._bad_keys.forget(change.key)
            return
        try:
            record = read_record(change.key, change.value)
            if len(self._served) + len(self._left_out) >= INSTANCES:
                raise DecodeError(f"More than {INSTANCES} instances are registered")
        except DecodeError as error:
            self.bad_records += 1
            if self._bad_keys.is_new(change.key):
                log.error(_BAD_RECORD, quoted(change.key.rpartition("/")[2][:64]), error)
            return
        self._bad_keys.forget(change.key)
        await self._add(change.key, record)

    async def _add(self, key: str, record: InstanceRecord) -> None:
        try:
            negotiate(record.instance.id, spoken_by(record), versions.SPOKEN)
            generation = self._generations.find(record) or await self._open(record)
        except DynemoError as error:
            if key not in self._left_out:
                log.error("Instance %s gets no requests for now. %s", record.instance.id, error)
            self._left_out[key] = (record, str(error))
            return
        self._left_out.pop(key, None)
        generation.pool.add(RemoteInstance(record, self._planes.requests, self._planes.responses))
        self._generations.joined(generation, record)
        self._planes.responses.on_load[record.instance.id] = generation.pool.reported
        self._served[key] = (generation, record.instance.id)
        self.appeared.set()
        log.info("Instance %s of %s is available.", record.instance.id, record.model)

    def _remove(self, key: str) -> None:
        self._left_out.pop(key, None)
        if (found := self._served.pop(key, None)) is not None:
            generation, instance_id = found
            generation.pool.remove(instance_id)
            self._generations.left(generation)
            self._planes.responses.on_load.pop(instance_id, None)
            log.info("Instance %s of %s has gone.", instance_id, generation.served.name)

    def _drop_idle_models(self) -> None:
        for served in self._generations.drop_idle(time.monotonic() - _IDLE_SECONDS):
            log.info("Dropped model %s: it had no instance for long.", served.name)

    async def _open(self, record: InstanceRecord) -> ServedGeneration:
        """A pool for a new card. Raises DynemoError if the card cannot be read."""
        self._generations.check_count()
        card = await self._card(record.card)
        pool = Pool(self._make_router(), text_codec(card.tokenizer), self._migration_limit)
        served = ServedModel(record.model, int(time.time()), card, pool)
        return self._generations.open(record, served, pool)

    async def _card(self, digest: str) -> Card:
        """Raises DynemoError. A bad card is read once: its name is a hash of its content."""
        if (known := self._bad_cards.get(digest)) is not None:
            raise known
        data = await self._planes.discovery.get_blob(digest)
        try:
            return await asyncio.to_thread(unpack_card, data)
        except Exception as error:
            problem = error if isinstance(error, DynemoError) else None
            if problem is None:
                log.exception("The card %s cannot be unpacked.", digest[:12])
                problem = ModelError(f"The registered model card {digest[:12]} cannot be read.")
            self._bad_cards[digest] = problem
            if len(self._bad_cards) > _BAD_CARDS:
                del self._bad_cards[next(iter(self._bad_cards))]
            raise problem from error


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
    work = {"ingress watch": it.watch, "ingress tend": it.tend, "ingress probe": it.probe}
    running = [kept_running(name, each, it.failed) for name, each in work.items()]
    tasks = [asyncio.create_task(each) for each in running]
    try:
        yield it
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
