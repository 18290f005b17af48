"""An ingress: the models that discovery names, served through remote instances."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from msgspec import DecodeError, msgpack

from dynemo.errors import DynemoError
from dynemo.messages import Record
from dynemo.pipeline import ServedModel
from dynemo.router.router import Router
from dynemo.runtime.discovery.base import Change, instances_prefix
from dynemo.runtime.discovery.discovery import Discovery
from dynemo.runtime.names import Address
from dynemo.runtime.pool import Pool
from dynemo.runtime.remote import RemoteInstance
from dynemo.runtime.requests.base import RequestPlane
from dynemo.runtime.responses.listen import Responses
from dynemo.text.card import Card
from dynemo.text.card_wire import unpack_card

log = logging.getLogger("dynemo.ingress")

_decode_record = msgpack.Decoder(Record).decode


@dataclass(frozen=True)
class Planes:
    """What an ingress stands on."""

    discovery: Discovery
    requests: RequestPlane
    responses: Responses


class Ingress:
    """The models of one address, kept as discovery says. Made by `ingress`."""

    def __init__(
        self,
        address: Address,
        planes: Planes,
        make_router: Callable[[], Router],
        migration_limit: int,
    ) -> None:
        #: By name; those that have lost all instances stay, and answer 503.
        self.models: dict[str, ServedModel] = {}
        self.appeared = asyncio.Event()  #: the first model is there
        self._address = address
        self._planes = planes
        self._make_router = make_router
        self._migration_limit = migration_limit
        self._pools: dict[str, Pool] = {}
        self._identities: dict[str, str] = {}
        self._names: dict[str, tuple[str, str]] = {}  # of keys: model, instance

    async def watch(self) -> None:
        """Follows discovery, for ever."""
        prefix = instances_prefix(self._address)
        async with aclosing(self._planes.discovery.watch(prefix)) as batches:
            async for changes in batches:
                for change in changes:
                    await self._apply(change)

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
        pool = self._pools.get(record.model)
        if pool is None or (not len(pool) and self._identities[record.model] != record.identity):
            pool = await self._open(record)
        if pool is None:
            return
        if self._identities[record.model] != record.identity:
            log.error(
                "instance %s has another card than its model; passed over", record.instance.id
            )
            return
        remote = RemoteInstance(record, self._planes.requests, self._planes.responses)
        pool.add(remote)
        self._names[change.key] = (record.model, record.instance.id)
        self.appeared.set()
        log.info("instance %s of %s has come", record.instance.id, record.model)

    def _forget(self, key: str) -> None:
        model, instance_id = self._names.pop(key, ("", ""))
        if model:
            self._pools[model].remove(instance_id)
            log.info("instance %s of %s is gone", instance_id, model)

    async def _open(self, record: Record) -> Pool | None:
        """A pool for a model that is new here."""
        try:
            data = await self._planes.discovery.get_blob(record.card)
            card: Card = await asyncio.to_thread(unpack_card, data)
        except DynemoError as error:
            log.error("the card of %s cannot be read: %s", record.model, error)
            return None
        tokenizer = card.tokenizer
        pool = Pool(
            self._make_router(),
            lambda text: tokenizer.encode(text, add_special=False, parse_special=False),
            self._migration_limit,
        )
        self._pools[record.model] = pool
        self._identities[record.model] = record.identity
        self.models[record.model] = ServedModel(record.model, int(time.time()), card, pool)
        return pool


@asynccontextmanager
async def ingress(
    address: Address,
    planes: Planes,
    *,
    make_router: Callable[[], Router],
    migration_limit: int,
) -> AsyncIterator[Ingress]:
    """Follows discovery while entered."""
    it = Ingress(address, planes, make_router, migration_limit)
    task = asyncio.create_task(it.watch(), name="ingress")
    try:
        yield it
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
