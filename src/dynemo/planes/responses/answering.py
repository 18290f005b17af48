"""The response plane at a worker: one connection to each ingress that asks, and the answers on it.

The ingress is reached *before* a request is accepted: a worker that cannot reach it refuses, and
the refusal says which addresses it tried, where accepting would leave the ingress to wait for an
answer that cannot come. It costs nothing once the connection is there.
"""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

from msgspec import DecodeError, msgpack

from dynemo.connection.addresses import Dialable, close_links, dial_link, first_of, turned_away
from dynemo.connection.framed import FramedConnection
from dynemo.connection.heartbeat import Beat
from dynemo.connection.server import RequestHandler, StreamServer
from dynemo.errors import Unavailable, WireError
from dynemo.messages.records import Load
from dynemo.messages.wire import Envelope
from dynemo.planes.responses.outgoing import IngressConnection
from dynemo.wire.frames import FrameKind

log = logging.getLogger("dynemo.responses")

DIAL_SECONDS = 1.5  # under what an ingress waits for its request to be accepted
_MAX_REMEMBERED = 1024

_decode_envelope = msgpack.Decoder(Envelope).decode

Dial = Callable[[FramedConnection, str], Awaitable[None]]


class IngressConnections:
    """Takes envelopes from a request plane, answers each on the connection to its ingress.

    Made by `answering`.
    """

    def __init__(
        self,
        instance_id: str,
        make_answers: Callable[[FramedConnection], StreamServer],
        tasks: asyncio.TaskGroup,
        dial: Dial,
        beat: Beat,
    ) -> None:
        self.instance_id = instance_id
        #: Raises Unavailable when the next request is to be refused.
        self.admit: Callable[[], None] = lambda: None
        self.max_streams = 4096
        self.make_answers = make_answers
        self.tasks = tasks
        self.beat = beat
        self._dial_link = dial
        self._is_draining = False
        self._pending = 0
        self._all: set[IngressConnection] = set()
        self._by_key: dict[bytes, IngressConnection] = {}
        self._dialling: dict[bytes, asyncio.Task[IngressConnection | Unavailable]] = {}
        self._worked: dict[bytes, str] = {}

    @property
    def running(self) -> int:
        """Streams that are being answered."""
        return sum(len(outgoing.answers) for outgoing in self._all)

    async def accept(self, body: bytes) -> None:
        """Starts to answer an encoded Envelope. A request plane's handler.

        Raises Unavailable (busy, draining, the ingress cannot be reached) or WireError to refuse.
        """
        try:
            envelope = _decode_envelope(body)
        except DecodeError as error:
            log.warning("a request's envelope does not decode: %s; dropped", error)
            raise WireError(f"The request's envelope does not decode: {error}.") from error
        self._check()
        self._pending += 1
        try:
            outgoing = await self._reach(envelope)
        finally:
            self._pending -= 1
        self._check()
        outgoing.open(envelope)

    def adopt(self, key: bytes, outgoing: IngressConnection) -> None:
        """The ingress with that key is reached on `outgoing` from now on."""
        self._by_key[key] = outgoing
        self._all.add(outgoing)

    def lost(self, outgoing: IngressConnection) -> None:
        """A connection has closed."""
        self._all.discard(outgoing)
        for key in [key for key, found in self._by_key.items() if found is outgoing]:
            del self._by_key[key]

    def drain(self) -> None:
        """Refuses what comes from now on, and tells every ingress so."""
        self._is_draining = True
        for outgoing in self._all:
            outgoing.link.send(FrameKind.GOAWAY, 0)

    async def finish(self, grace: float) -> int:
        """Drains; hands back the streams that have not ended in `grace` seconds. How many.

        Cancelling it ends the grace.
        """
        self.drain()
        running = [task for outgoing in self._all for task in outgoing.answers.tasks]
        left = 0
        try:
            if running:
                await asyncio.wait(running, timeout=grace)
        finally:
            left = sum(outgoing.answers.hand_back() for outgoing in self._all)
        return left

    async def close(self) -> None:
        """Cancels what runs and closes every connection, after what was sent has left."""
        self._is_draining = True
        for dialling in self._dialling.values():
            dialling.cancel()
        for outgoing in self._all:
            outgoing.answers.cancel_all()
        await close_links([outgoing.link for outgoing in self._all])

    def _check(self) -> None:
        if self._is_draining:
            raise Unavailable(f"Worker {self.instance_id[:8]} is draining.")
        if self.running + self._pending >= self.max_streams:
            raise Unavailable(f"Worker {self.instance_id[:8]} is busy.")
        self.admit()

    async def _reach(self, envelope: Envelope) -> IngressConnection:
        found = self._by_key.get(envelope.key)
        if found is not None and found.link.is_open:
            return found
        dialling = self._dialling.get(envelope.key)
        if dialling is None:
            dialling = self.tasks.create_task(self._dial(envelope))
            self._dialling[envelope.key] = dialling
            dialling.add_done_callback(lambda _: self._dialling.pop(envelope.key))
        reached = await asyncio.shield(dialling)  # others wait for it as well
        if isinstance(reached, Unavailable):
            raise reached
        return reached

    async def _dial(self, envelope: Envelope) -> IngressConnection | Unavailable:
        key = envelope.key
        addresses = Dialable(envelope.addresses, envelope.loopback).reached_from(envelope.host)
        if (worked := self._worked.get(key)) in addresses:
            addresses.sort(key=lambda address: address != worked)
        reasons = f"none of {', '.join(addresses)} answered in {DIAL_SECONDS:g} s"
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                dial = partial(self._dial_one, key)
                address, outgoing = await first_of(addresses, dial, lambda out: out.link.abort())
        except (ConnectionError, TimeoutError) as error:
            reasons = str(error) or reasons
            log.warning("cannot reach the ingress: %s", reasons)
            return Unavailable(
                f"Worker {self.instance_id[:8]} cannot reach this ingress ({reasons}); "
                "--advertise says where it is dialled, and --tls how."
            )
        self._worked[key] = address
        if len(self._worked) > _MAX_REMEMBERED:
            del self._worked[next(iter(self._worked))]
        self.adopt(key, outgoing)
        return outgoing

    async def _dial_one(self, key: bytes, address: str) -> IngressConnection:
        outgoing = IngressConnection(self.make_answers, self.beat, self.lost)
        try:
            await self._dial_link(outgoing.link, address)
            outgoing.greet(self.instance_id, key)
            if not await outgoing.confirmed:
                raise turned_away(address)
        except BaseException:
            outgoing.link.abort()
            raise
        return outgoing


@asynccontextmanager
async def answering(
    instance_id: str,
    source: RequestHandler,
    *,
    load_at_end: Callable[[], Load] | None = None,
    tls: ssl.SSLContext | None = None,
    beat: Beat | None = None,
    dial: Dial | None = None,
) -> AsyncIterator[IngressConnections]:
    """A worker's answering side. Leaving cancels every stream and closes every connection.

    `load_at_end` gives the load that each answer's end carries; `dial` stands in for TCP.
    """

    def make_answers(link: FramedConnection) -> StreamServer:
        return StreamServer(link, source, tasks, load_at_end)

    raised: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        dial = dial or (lambda link, address: dial_link(link, address, tls))
        it = IngressConnections(instance_id, make_answers, tasks, dial, beat or Beat())
        try:
            yield it
        except Exception as error:  # not to be wrapped into a group
            raised = error
        finally:
            await it.close()
    if raised is not None:
        raise raised
