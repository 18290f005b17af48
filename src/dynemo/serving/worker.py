"""A worker: one engine, registered in discovery, that answers the requests of ingresses."""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from msgspec import DecodeError, msgpack

from dynemo.connection.addresses import host_id, host_name
from dynemo.errors import DynemoError, InstanceAway, Unavailable, UsageError
from dynemo.foreign import decode_msgpack
from dynemo.messages.records import Instance, InstanceRecord
from dynemo.planes.discovery.base import (
    claim_key,
    identity_key,
    instance_key,
    instances_prefix,
)
from dynemo.planes.discovery.discovery import Discovery
from dynemo.planes.discovery.records import read_record
from dynemo.planes.names import EndpointName
from dynemo.planes.requests.base import RequestServer
from dynemo.planes.responses.ingresses import IngressConnections, ingress_connections
from dynemo.prompt.card.card import Card
from dynemo.prompt.card.identity import CardIdentity, difference, identify
from dynemo.prompt.card.wire import pack_card
from dynemo.serving.handler import WorkerHandler
from dynemo.serving.local.instance import LocalInstance
from dynemo.spelling import quoted, with_reason
from dynemo.wire import versions

log = logging.getLogger("dynemo.worker")

#: Answers that a worker gives at once. Ingresses keep further requests in their queues.
_STREAMS_PER_SLOT = 2
_LEAST_STREAMS = 8

OpenRequestServer = Callable[[IngressConnections], AbstractAsyncContextManager[RequestServer]]


@dataclass(frozen=True)
class Generation:
    """How a worker's card stands to the cards of other workers of its model."""

    replaces: bool = False  #: it may register beside another card
    weight: float = 1.0  #: its share of new requests


async def claim_name(
    discovery: Discovery, address: EndpointName, card: Card, *, replaces: bool = False
) -> CardIdentity:
    """Claims the model's name for this card. Raises UsageError if another card has it, unless
    `replaces` is set, or other workers have registered this card beside it."""
    identity = await asyncio.to_thread(identify, card)
    ours = msgpack.encode(identity)
    key = claim_key(address, card.name)
    other = await discovery.claim(key, ours) or await _older_claim(discovery, address, identity)
    if other is None:
        return identity
    if replaces or ours in (await discovery.read(f"{key}/")).values():
        await discovery.claim_beside(key, ours)
        return identity
    theirs = decode_msgpack(other, CardIdentity)
    raise UsageError(
        f"Another worker serves {quoted(card.name)} at {address} with another model: "
        f"{difference(identity, theirs)}. Give this one another --model-name, or --replace if it "
        "shall take over."
    )


async def _older_claim(
    discovery: Discovery, address: EndpointName, identity: CardIdentity
) -> bytes | None:
    """The other card that workers of 0.1 serve here under this name. Their claims hold for the
    whole namespace, so an instance of theirs must be registered here."""
    claims = (await discovery.read(f"{identity_key(address.namespace, identity.name)}/")).values()
    others = {decode_msgpack(claim, CardIdentity).whole: claim for claim in claims}
    others.pop(identity.whole, None)
    if not others:
        return None
    for key, value in (await discovery.read(instances_prefix(address))).items():
        with contextlib.suppress(DecodeError):
            record = read_record(key, value)
            if record.model == identity.name and record.identity in others:
                return others[record.identity]
    return None


@asynccontextmanager
async def registered(
    discovery: Discovery,
    address: EndpointName,
    card: Card,
    server: RequestServer,
    generation: Generation | None = None,
) -> AsyncIterator[Callable[[Instance], InstanceRecord]]:
    """Claims the name and stores the card. Gives a function that makes the instance's record."""
    generation = generation or Generation()
    identity = await claim_name(discovery, address, card, replaces=generation.replaces)
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
            # Only an ingress that dials needs the host id. A stranger could misuse it.
            host=host_id() if server.reach.loopback else host_name(),
            hostname=_plain_hostname(),
            addresses=server.reach.addresses,
            loopback=server.reach.loopback,
            key=server.key,
            started=time.time(),
            pid=os.getpid(),
            oldest=versions.SPOKEN.oldest,
            newest=versions.SPOKEN.newest,
            replaces=generation.replaces,
            weight=generation.weight,
        )

    yield record


def _plain_hostname() -> str:
    name = socket.gethostname()
    return name if name.isascii() and name.isprintable() else ""


@dataclass(frozen=True)
class WorkerNetwork:
    """The planes of a worker, its address and its id."""

    worker_id: str  #: its engine's instance id
    address: EndpointName
    discovery: Discovery
    open_request_server: OpenRequestServer
    tls: ssl.SSLContext | None = None  #: for the ingresses that it dials
    generation: Generation = Generation()


async def serve_worker(
    handler: WorkerHandler,
    card: Card,
    network: WorkerNetwork,
    *,
    grace: float,
    loaded: Callable[[], Awaitable[Instance | None]],
    stop: asyncio.Event,
    on_ready: Callable[[], None],
) -> None:
    """Serves until `stop`. Then leaves discovery, finishes streams for `grace` seconds, and hands
    the rest back to their ingresses.

    It opens the planes while the engine still loads, so that a refusal shows early. `loaded` waits
    for the instance; None if the worker stops before.
    """
    local, discovery = handler.local, network.discovery
    async with (
        ingress_connections(
            network.worker_id, handler, load_at_end=lambda: local.load, tls=network.tls
        ) as ingresses,
        network.open_request_server(ingresses) as server,
        registered(discovery, network.address, card, server, network.generation) as record,
    ):
        ingresses.admit = lambda: _admit(local)
        ingresses.on_drain = partial(_drain, stop)
        ingresses.failures = lambda: handler.failures
        if (instance := await loaded()) is None:
            return
        ingresses.max_streams = max(_STREAMS_PER_SLOT * instance.slots, _LEAST_STREAMS)
        accept = handler.counted(ingresses.accept)
        async with server.serve(record(instance), accept, lambda: ingresses.report(local.load)):
            key = instance_key(network.address, network.worker_id)
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
            left = await ingresses.finish(grace)
            if left:
                log.warning("Streams handed back to their ingresses: %d.", left)


def _drain(stop: asyncio.Event) -> None:
    if not stop.is_set():
        log.warning("An operator has asked this worker to drain.")
        stop.set()


def _admit(local: LocalInstance) -> None:
    if local.trouble:
        raise InstanceAway(with_reason("The engine takes no requests now", local.trouble))


async def _keep_registered(
    local: LocalInstance,
    discovery: Discovery,
    key: str,
    record: Callable[[Instance], InstanceRecord],
    on_ready: Callable[[], None],
) -> None:
    """Keeps the record in discovery while the engine is up, and removes it while it restarts."""
    while True:
        await local.up.wait()
        if (instance := local.instance) is None:
            continue  # it died in the same turn of the loop
        with _logged("register"):
            await discovery.put(key, msgpack.encode(record(instance)))
        on_ready()
        await local.down.wait()
        with _logged("remove its record"):
            await discovery.remove(key)


@contextlib.contextmanager
def _logged(action: str) -> Iterator[None]:
    try:
        yield
    except DynemoError as error:
        log.warning("The worker cannot %s now, and tries again later. %s", action, error)
