"""A worker: one engine, registered in discovery, answering what ingresses ask."""

import asyncio
import contextlib
import logging
import os
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from msgspec import msgpack

from dynemo.connection.addresses import host_id
from dynemo.errors import DynemoError, Unavailable, UsageError
from dynemo.messages.records import Instance, InstanceRecord
from dynemo.planes.discovery.base import identity_key, instance_key
from dynemo.planes.discovery.discovery import Discovery
from dynemo.planes.names import EndpointName
from dynemo.planes.requests.base import RequestServer
from dynemo.planes.responses.answering import IngressConnections, answering
from dynemo.prompt.card.card import Card
from dynemo.prompt.card.identity import CardIdentity, difference, identify
from dynemo.prompt.card.wire import pack_card
from dynemo.serving.handler import WorkerHandler
from dynemo.serving.local.instance import LocalInstance

log = logging.getLogger("dynemo.worker")

OpenIntake = Callable[[IngressConnections], AbstractAsyncContextManager[RequestServer]]


async def claim_name(discovery: Discovery, address: EndpointName, card: Card) -> CardIdentity:
    """Claims the model's name for this card. Raises UsageError where another card has it."""
    identity = await asyncio.to_thread(identify, card)
    key = identity_key(address.namespace, card.name)
    other = await discovery.claim(key, msgpack.encode(identity))
    if other is not None:
        theirs = msgpack.decode(other, type=CardIdentity)
        raise UsageError(
            f"Another worker serves {card.name!r} in {address.namespace} with another model: "
            f"{difference(identity, theirs)}; give this one another --model-name."
        )
    return identity


@asynccontextmanager
async def registered(
    discovery: Discovery, address: EndpointName, card: Card, intake: RequestServer
) -> AsyncIterator[Callable[[Instance], InstanceRecord]]:
    """Claims the name and stores the card; gives what makes the record once the engine is up."""
    identity = await claim_name(discovery, address, card)
    digest = await discovery.put_blob(await asyncio.to_thread(pack_card, card))

    def record(instance: Instance) -> InstanceRecord:
        return InstanceRecord(
            instance=instance,
            namespace=address.namespace,
            component=address.component,
            endpoint=address.endpoint,
            model=card.name,
            identity=identity.whole,
            card=digest,
            host=host_id(),
            addresses=intake.reach.addresses,
            loopback=intake.reach.loopback,
            key=intake.key,
            started=time.time(),
            pid=os.getpid(),
        )

    yield record


@dataclass(frozen=True)
class WorkerNetwork:
    """Where a worker works, and under which id: its engine's."""

    worker_id: str
    address: EndpointName
    discovery: Discovery
    open_intake: OpenIntake
    tls: ssl.SSLContext | None = None  #: for the ingresses that it dials


async def serve_worker(
    accounts: WorkerHandler,
    card: Card,
    pool: WorkerNetwork,
    *,
    grace: float,
    loaded: Callable[[], Awaitable[Instance | None]],
    stop: asyncio.Event,
    on_ready: Callable[[], None],
) -> None:
    """Serves until `stop`: then leaves discovery, finishes streams for `grace` seconds, hands the
    rest back to their ingresses.

    Whatever could refuse this worker is asked while the engine still loads. `loaded` waits for the
    instance: None where it is to stop before.
    """
    local, discovery = accounts.local, pool.discovery
    async with (
        answering(
            pool.worker_id, accounts, load_at_end=lambda: local.load, tls=pool.tls
        ) as answers,
        pool.open_intake(answers) as intake,
        registered(discovery, pool.address, card, intake) as record,
    ):
        answers.admit = lambda: _admit(local)
        if (instance := await loaded()) is None:
            return
        async with intake.serve(record(instance), accounts.of(answers.accept), lambda: local.load):
            key = instance_key(pool.address, pool.worker_id)
            keeping = asyncio.create_task(_keep_registered(local, discovery, key, record, on_ready))
            try:
                await stop.wait()
            finally:
                keeping.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await keeping
            with contextlib.suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(2):
                    await discovery.remove(key)
            left = await answers.finish(grace)
            if left:
                log.warning("%d streams go on elsewhere", left)


def _admit(local: LocalInstance) -> None:
    if local.trouble:
        raise Unavailable(f"The engine takes no requests now: {local.trouble}.")


async def _keep_registered(
    local: LocalInstance,
    discovery: Discovery,
    key: str,
    record: Callable[[Instance], InstanceRecord],
    on_ready: Callable[[], None],
) -> None:
    """In discovery while the engine is up; out of it while it is started again."""
    while True:
        await local.up.wait()
        if (instance := local.instance) is None:
            continue  # it died in the turn in which it came up
        with _told("register"):
            await discovery.put(key, msgpack.encode(record(instance)))
        on_ready()
        await local.down.wait()
        with _told("leave discovery"):
            await discovery.remove(key)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except DynemoError as error:
        log.warning("cannot %s now, and will once it can: %s", what, error)
