"""The response plane at a worker: one connection to each ingress that asks, and the answers on it.

A worker connects to the ingress *before* it accepts a request. If it cannot connect, it refuses,
and the refusal names the addresses that it tried. If it accepted first, the ingress would wait for
an answer that cannot arrive. An open connection makes this step free.
"""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic

from msgspec import DecodeError

from dynemo.connection.addresses import (
    Dialable,
    close_connections,
    closed_before_hello,
    connect,
    first_of,
    is_this_host,
)
from dynemo.connection.framed import FramedConnection
from dynemo.connection.heartbeat import Beat
from dynemo.connection.logged_peers import LoggedPeers
from dynemo.connection.server import RequestHandler, StreamServer
from dynemo.errors import IngressUnreachable, InstanceAway, Overloaded, Unavailable, WireError
from dynemo.limits import DIALLED_PEERS
from dynemo.messages.records import Load, LoadReport
from dynemo.messages.wire import Envelope
from dynemo.planes.responses.envelopes import read_envelope
from dynemo.planes.responses.outgoing import IngressConnection
from dynemo.wire import versions
from dynemo.wire.frames import FrameKind
from dynemo.wire.versions import negotiate, spoken_by

log = logging.getLogger("dynemo.responses")

DIAL_SECONDS = 1.5  # less than an ingress waits for a request to be accepted
#: The most seconds between two attempts to reach an ingress.
REDIAL_SECONDS = 6.0
_MAX_REMEMBERED = 1024
#: Reports of a changed load leave at most this often to each ingress, and in sum. With older
#: reports, several ingresses send their next requests to the same worker.
REPORT_SECONDS = 0.02
MAX_REPORTS = 200.0  # a second

#: Gets the address, and whether it may be loopback.
Dial = Callable[[FramedConnection, str, bool], Awaitable[None]]


@dataclass(frozen=True)
class _Unreachable:
    """An ingress that this worker could not reach. Its requests are refused at once; the next one
    after `until` dials again."""

    problem: str
    backoff: float
    until: float


class IngressConnections:
    """Takes envelopes from a request plane, answers each on the connection to its ingress.

    Made by `ingress_connections`.
    """

    def __init__(
        self,
        instance_id: str,
        make_server: Callable[[FramedConnection], StreamServer],
        tasks: asyncio.TaskGroup,
        dial: Dial,
        beat: Beat,
    ) -> None:
        self.instance_id = instance_id
        #: Raises Unavailable if the worker should refuse the next request.
        self.admit: Callable[[], None] = lambda: None
        #: An operator wants the worker to stop.
        self.on_drain: Callable[[], None] = lambda: None
        #: Answers in sequence that the engine failed.
        self.failures: Callable[[], int] = lambda: 0
        self.max_streams = 4096
        self.make_server = make_server
        self.tasks = tasks
        self.beat = beat
        self.refused = LoggedPeers()  #: keys of ingresses of another protocol
        self._dial = dial
        self._unreachable: dict[bytes, _Unreachable] = {}  # by key
        self._is_draining = False
        self._accepting = 0
        self._all: set[IngressConnection] = set()
        self._by_key: dict[bytes, IngressConnection] = {}
        self._dialling: dict[bytes, asyncio.Task[IngressConnection | Unavailable]] = {}
        self._last_address: dict[bytes, str] = {}  # that connected
        self._report_timer: asyncio.TimerHandle | None = None
        self._reported_at = 0.0  # loop time

    @property
    def running(self) -> int:
        """Streams that are being answered."""
        return sum(len(ingress.server) for ingress in self._all)

    async def accept(self, body: bytes) -> None:
        """Starts to answer an encoded Envelope. A request plane's handler.

        To refuse, raises Unavailable (busy, draining, the ingress cannot be reached or speaks
        another protocol) or WireError.
        """
        try:
            envelope = read_envelope(body)
        except DecodeError as error:
            log.warning("Refused a request whose envelope does not decode: %s.", error)
            raise WireError(f"The request's envelope does not decode: {error}.") from error
        if envelope.drain:
            self.on_drain()
            raise InstanceAway(f"Worker {self.instance_id[:8]} is draining.")
        self._check()
        self._accepting += 1
        try:
            ingress = await self._connected(envelope)
        finally:
            self._accepting -= 1
        self._check()
        ingress.open(envelope)
        self._report_soon()

    def report(self, load: Load, server: StreamServer | None = None) -> LoadReport:
        """The report to the ingress of that server. It knows its own streams better than we do, and
        subtracts them."""
        own = 0 if server is None else len(server)
        streams = self.running
        if server is not None:
            server.elsewhere = streams - own
        return LoadReport(load.running, load.waiting, load.kv_use, streams, own, self.failures())

    def _report_soon(self) -> None:
        """Reports to each ingress whose load has changed, while streams start and end."""
        if self._report_timer is None:
            loop = asyncio.get_running_loop()
            wait = max(REPORT_SECONDS, len(self._all) / MAX_REPORTS)
            self._report_timer = loop.call_at(
                max(loop.time(), self._reported_at + wait), self._report
            )

    def _report(self) -> None:
        self._report_timer = None
        self._reported_at = asyncio.get_running_loop().time()
        running = self.running
        for ingress in self._all:
            if ingress.server.elsewhere != running - len(ingress.server):
                ingress.server.pong()
        if running:
            self._report_soon()

    def adopt(self, key: bytes, ingress: IngressConnection) -> None:
        """Uses this connection for the ingress with that key from now on."""
        self._by_key[key] = ingress
        self._all.add(ingress)

    def lost(self, ingress: IngressConnection) -> None:
        """A connection has closed."""
        self._all.discard(ingress)
        for key in [key for key, found in self._by_key.items() if found is ingress]:
            del self._by_key[key]

    def drain(self) -> None:
        """Refuses all further requests, and tells every ingress to send none."""
        self._is_draining = True
        for ingress in self._all:
            ingress.connection.send(FrameKind.GOAWAY, 0)

    async def finish(self, grace: float) -> int:
        """Drains, waits `grace` seconds, hands back the streams that still run. Returns how many.

        Cancelling it ends the grace.
        """
        self.drain()
        running = [task for ingress in self._all for task in ingress.server.tasks]
        left = 0
        try:
            if running:
                await asyncio.wait(running, timeout=grace)
        finally:
            left = sum(ingress.server.hand_back() for ingress in self._all)
        return left

    async def close(self) -> None:
        """Cancels all streams and closes every connection, after what was sent has left."""
        self._is_draining = True
        if self._report_timer is not None:
            self._report_timer.cancel()
        for dialling in self._dialling.values():
            dialling.cancel()
        for ingress in self._all:
            ingress.server.cancel_all()
        await close_connections([ingress.connection for ingress in self._all])

    def _check(self) -> None:
        if self._is_draining:
            raise InstanceAway(f"Worker {self.instance_id[:8]} is draining.")
        if self.running + self._accepting >= self.max_streams:
            raise Overloaded(f"Worker {self.instance_id[:8]} is busy.")
        self.admit()

    async def _connected(self, envelope: Envelope) -> IngressConnection:
        version = self._negotiate(envelope)
        found = self._by_key.get(envelope.key)
        if found is not None and found.connection.is_open:
            return found
        failed = self._unreachable.get(envelope.key)
        dialling = self._dialling.get(envelope.key)
        if failed is not None and (dialling is not None or monotonic() < failed.until):
            raise IngressUnreachable(failed.problem)
        if dialling is None:
            if len(self._dialling) >= DIALLED_PEERS:
                raise Unavailable(f"Worker {self.instance_id[:8]} dials too many ingresses now.")
            dialling = self.tasks.create_task(self._connect(envelope, version))
            self._dialling[envelope.key] = dialling
            dialling.add_done_callback(lambda _: self._dialling.pop(envelope.key))
        connected = await asyncio.shield(dialling)  # other requests wait for it as well
        if isinstance(connected, Unavailable):
            raise connected
        return connected

    def _negotiate(self, envelope: Envelope) -> int:
        """Raises Unavailable: another worker may speak the ingress's protocol."""
        try:
            return negotiate(self.instance_id, versions.SPOKEN, spoken_by(envelope))
        except WireError as error:
            if self.refused.is_new(envelope.key):
                log.warning("%s", error)
            raise Unavailable(str(error)) from error

    async def _connect(self, envelope: Envelope, version: int) -> IngressConnection | Unavailable:
        key = envelope.key
        addresses = Dialable(envelope.addresses, envelope.loopback).reached_from(envelope.host)
        if (last := self._last_address.get(key)) in addresses:
            addresses.sort(key=lambda address: address != last)
        reasons = f"none of {', '.join(addresses)} answered in {DIAL_SECONDS:g} s"
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                dial = partial(self._connect_one, key, version, is_this_host(envelope.host))
                address, ingress = await first_of(addresses, dial, lambda it: it.connection.abort())
        except (ConnectionError, TimeoutError) as error:
            reasons = str(error) or reasons
            return self._remember(key, reasons)
        self._unreachable.pop(key, None)
        self._last_address[key] = address
        if len(self._last_address) > _MAX_REMEMBERED:
            del self._last_address[next(iter(self._last_address))]
        self.adopt(key, ingress)
        return ingress

    def _remember(self, key: bytes, reasons: str) -> IngressUnreachable:
        """An ingress that cannot be reached: only one request in a while tries it again."""
        before = self._unreachable.pop(key, None)
        if before is None:
            log.warning("Cannot reach an ingress: %s.", reasons)
        backoff = min(2 * before.backoff, REDIAL_SECONDS) if before is not None else DIAL_SECONDS
        problem = (
            f"Worker {self.instance_id[:8]} cannot reach this ingress: {reasons}. Give the "
            "ingress a reachable address with --advertise, and the same --tls on both sides."
        )
        self._unreachable[key] = _Unreachable(problem, backoff, monotonic() + backoff)
        if len(self._unreachable) > _MAX_REMEMBERED:
            del self._unreachable[next(iter(self._unreachable))]
        return IngressUnreachable(problem)

    async def _connect_one(
        self, key: bytes, version: int, is_same_host: bool, address: str
    ) -> IngressConnection:
        ingress = IngressConnection(self.make_server, self.beat, self.lost)
        try:
            await self._dial(ingress.connection, address, is_same_host)
            ingress.greet(self.instance_id, key, version)
            if not await ingress.confirmed:
                raise closed_before_hello(address, ingress.refusal)
        except BaseException:
            ingress.connection.abort()
            raise
        return ingress


@asynccontextmanager
async def ingress_connections(
    instance_id: str,
    handler: RequestHandler,
    *,
    load_at_end: Callable[[], Load] | None = None,
    tls: ssl.SSLContext | None = None,
    beat: Beat | None = None,
    dial: Dial | None = None,
) -> AsyncIterator[IngressConnections]:
    """A worker's connections. Leaving cancels every stream and closes every connection.

    `load_at_end` gives the engine's load, for END and PONG. `dial` replaces TCP.
    """

    def make_server(connection: FramedConnection) -> StreamServer:
        return StreamServer(connection, handler, tasks, load_at_end, load_at_end and report)

    def report(server: StreamServer) -> LoadReport:
        assert load_at_end is not None
        return ingresses.report(load_at_end(), server)

    async def dial_tcp(connection: FramedConnection, address: str, is_same_host: bool) -> None:
        await connect(connection, address, tls, is_same_host=is_same_host)

    problem: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        dial = dial or dial_tcp
        ingresses = IngressConnections(instance_id, make_server, tasks, dial, beat or Beat())
        try:
            yield ingresses
        except Exception as error:  # raised below: a task group would wrap it
            problem = error
        finally:
            await ingresses.close()
    if problem is not None:
        raise problem
