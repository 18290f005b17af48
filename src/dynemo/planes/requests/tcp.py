"""The request plane without NATS: the ingress dials the worker, whose address is in its record.

The ingress sends HELLO with the key from the record and with its own key. The worker answers with
HELLO, as on a connection that it dials itself. From then on this *is* the connection of the
response plane between the two. A request is an OPEN to the worker, with the envelope. The worker
accepts with an OPEN of its own, or refuses with ERROR. A PONG carries its load.
"""

import asyncio
import hmac
import logging
import secrets
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from msgspec import DecodeError, msgpack

from dynemo.connection.addresses import (
    Dialable,
    closed_before_hello,
    connect,
    dialable,
    first_of,
    is_this_host,
    port_of,
    start_server,
)
from dynemo.connection.logged_peers import LoggedPeers
from dynemo.connection.unauthenticated import UnauthenticatedConnections
from dynemo.errors import DynemoError, InstanceGone, InstanceSilent, Unavailable, WireError
from dynemo.messages.records import InstanceRecord, Load
from dynemo.messages.wire import Envelope, Greeting
from dynemo.planes.requests.base import ASK_SECONDS, OnRequest
from dynemo.planes.responses.incoming import MAX_UNGREETED, WorkerConnection, decode_greeting
from dynemo.planes.responses.ingresses import IngressConnections
from dynemo.planes.responses.listen import ResponseListener
from dynemo.planes.responses.outgoing import IngressConnection
from dynemo.wire import versions
from dynemo.wire.failures import encode_error
from dynemo.wire.frames import MAX_BODY, Frame, FrameKind
from dynemo.wire.state import ConnectionState, Role, StreamState, stream_after
from dynemo.wire.versions import negotiate, spoken_by

log = logging.getLogger("dynemo.requests")

_encode = msgpack.Encoder().encode
_ENVELOPE_BYTES = 4096  # room for the fields of an envelope besides its request
_MANY = 1024  # instances; above, the entries of instances that are gone are removed


class DialedWorker(WorkerConnection):
    """A connection that this ingress dials. `confirmed`: whether the worker sent a valid HELLO."""

    def __init__(self, responses: ResponseListener, instance_id: str) -> None:
        super().__init__(responses, responses.beat, is_dialled_here=True, expected_id=instance_id)
        self.confirmed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._replies: dict[int, asyncio.Future[None]] = {}  # by stream
        self._loads: list[asyncio.Future[Load]] = []

    def is_idle(self) -> bool:
        return super().is_idle() and not self._replies

    def state_of(self, stream: int) -> StreamState:
        reply = self._replies.get(stream)
        is_asked = reply is not None and not reply.done()
        return StreamState.PENDING if is_asked else super().state_of(stream)

    def greet(self, record: InstanceRecord, own_key: bytes) -> None:
        key, spoken = bytes.fromhex(record.key), versions.SPOKEN
        greeting = Greeting(spoken.oldest, record.instance.id, key, own_key, spoken.newest)
        self.connection.send(FrameKind.HELLO, 0, _encode(greeting))

    async def ask(self, stream: int, envelope: bytes) -> None:
        """Raises the worker's refusal, or InstanceGone if the connection closes."""
        reply = self._replies[stream] = asyncio.get_running_loop().create_future()
        try:
            if not self.connection.is_open:
                raise InstanceGone("The connection is closed.")
            self.connection.send(FrameKind.OPEN, stream, envelope)
            await reply
        finally:
            del self._replies[stream]

    async def ask_load(self) -> Load:
        """Raises InstanceGone if the connection closes."""
        if not self.connection.is_open:
            raise InstanceGone("The connection is closed.")
        reply: asyncio.Future[Load] = asyncio.get_running_loop().create_future()
        self._loads.append(reply)
        self.connection.send(FrameKind.PING, 0)
        return await reply

    def on_connection(self, frame: Frame) -> None:
        super().on_connection(frame)
        if frame.kind == FrameKind.HELLO and self.instance_id and not self.confirmed.done():
            self.confirmed.set_result(True)
        elif frame.kind == FrameKind.PONG:
            loads, self._loads = self._loads, []
            for reply in loads:
                if not reply.done():
                    reply.set_result(self.load)

    def on_stream_not_open(self, state: StreamState, frame: Frame) -> None:
        super().on_stream_not_open(state, frame)
        reply = self._replies.get(frame.stream)
        if frame.kind == FrameKind.OPEN and reply is not None and not reply.done():
            reply.set_result(None)

    def on_refused(self, stream: int, error: DynemoError) -> None:
        reply = self._replies.get(stream)
        if reply is not None and not reply.done():
            reply.set_exception(error)

    def on_lost(self) -> None:
        super().on_lost()
        if not self.confirmed.done():
            self.confirmed.set_result(False)
        waiting: list[asyncio.Future[Any]] = [*self._replies.values(), *self._loads]
        for reply in waiting:
            if not reply.done():
                reply.set_exception(InstanceGone("The worker closed the connection."))


class TcpRequests:
    """An ingress's `RequestPlane`. `tls` is for the connections that it dials."""

    max_request = MAX_BODY - _ENVELOPE_BYTES
    trouble = ""  # each instance is asked on its own connection

    def __init__(self, responses: ResponseListener, tls: ssl.SSLContext | None = None) -> None:
        self._responses = responses
        self._tls = tls
        self._workers: dict[str, DialedWorker] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._unreachable = LoggedPeers()  # by instance id

    async def ask(
        self, record: InstanceRecord, envelope: Envelope, timeout: float = ASK_SECONDS
    ) -> None:
        name = record.instance.id[:8]
        body = _encode(envelope)
        known = self._workers.get(record.instance.id)
        try:
            async with asyncio.timeout(timeout):
                worker = await self._connected(record)
                try:
                    await worker.ask(envelope.stream, body)
                except InstanceGone:
                    if worker is not known:
                        raise
                    # The worker closed it, perhaps because it was idle, while we wrote to it.
                    await (await self._connected(record)).ask(envelope.stream, body)
        except TimeoutError:
            raise InstanceSilent(f"Worker {name} did not reply in {timeout:g} s.") from None
        except ConnectionError as error:
            raise InstanceGone(f"Worker {name} cannot be reached: {error}.") from error

    async def wait_until_up(self) -> None:
        """It has no server that could be down."""

    async def load(self, record: InstanceRecord, timeout: float = ASK_SECONDS) -> Load:
        name = record.instance.id[:8]
        try:
            async with asyncio.timeout(timeout):
                return await (await self._connected(record)).ask_load()
        except TimeoutError:
            raise InstanceSilent(f"Worker {name} did not reply in {timeout:g} s.") from None
        except ConnectionError as error:
            raise InstanceGone(f"Worker {name} cannot be reached: {error}.") from error

    async def _connected(self, record: InstanceRecord) -> DialedWorker:
        name = record.instance.id
        async with self._locks.setdefault(name, asyncio.Lock()):
            worker = self._workers.get(name)
            if worker is None or not worker.connection.is_open:
                worker = self._workers[name] = await self._connect(record)
                self._remove_gone()
            return worker

    def _remove_gone(self) -> None:
        if len(self._locks) > _MANY:
            self._workers = {n: w for n, w in self._workers.items() if w.connection.is_open}
            self._locks = {name: lock for name, lock in self._locks.items() if lock.locked()}

    async def _connect(self, record: InstanceRecord) -> DialedWorker:
        reach = Dialable(record.addresses, record.loopback)
        dial = partial(self._connect_one, record)
        addresses = reach.reached_from(record.host)
        try:
            _, worker = await first_of(addresses, dial, lambda found: found.connection.abort())
        except ConnectionError as error:
            if self._unreachable.is_new(record.instance.id):
                log.warning("Cannot reach worker %s: %s.", record.instance.id[:8], error)
            raise
        self._unreachable.forget(record.instance.id)
        return worker

    async def _connect_one(self, record: InstanceRecord, address: str) -> DialedWorker:
        worker = DialedWorker(self._responses, record.instance.id)
        try:
            is_same_host = is_this_host(record.host)
            await connect(worker.connection, address, self._tls, is_same_host=is_same_host)
            worker.greet(record, self._responses.key)
            if not await worker.confirmed:
                raise closed_before_hello(address, worker.refusal)
        except BaseException:
            worker.connection.abort()
            raise
        return worker


class AcceptedIngress(IngressConnection):
    """The worker's side of a connection that an ingress has dialled."""

    def __init__(self, server: "TcpRequestServer", ingresses: IngressConnections) -> None:
        role = Role.DIALED_WORKER
        super().__init__(ingresses.make_server, ingresses.beat, self._on_ingress_lost, role)
        self._request_server = server
        self._ingresses = ingresses
        self.connection.cap(MAX_UNGREETED)
        server.unauthenticated.add(self.connection)

    def on_connection(self, frame: Frame) -> None:
        if frame.kind != FrameKind.HELLO:
            super().on_connection(frame)
            return
        try:
            greeting = decode_greeting(frame.body)
        except DecodeError as error:
            raise WireError(f"The HELLO does not decode: {error}.") from error
        if not hmac.compare_digest(greeting.key.hex(), self._request_server.key):
            raise WireError("The HELLO has a wrong key.")
        if greeting.instance != self._ingresses.instance_id:
            raise WireError("The HELLO names another instance.")
        try:
            version = negotiate(greeting.instance, versions.SPOKEN, spoken_by(greeting))
        except WireError as error:
            self._refuse_hello(greeting, error)
            return
        self.connection.cap(MAX_BODY)
        self._request_server.unauthenticated.remove(self.connection)
        self.greet(greeting.instance, greeting.answer_key, version)
        self._ingresses.adopt(greeting.answer_key, self)

    def _refuse_hello(self, greeting: Greeting, error: WireError) -> None:
        if self._ingresses.refused.is_new(greeting.answer_key):
            log.warning("%s", error)
        self.state = ConnectionState.CLOSED
        self.connection.send(FrameKind.ERROR, 0, encode_error(error))
        self.connection.close()

    def on_stream(self, frame: Frame) -> None:
        if frame.kind != FrameKind.OPEN:
            super().on_stream(frame)
            return
        stream_after(self.role, self.state, self.state_of(frame.stream), frame)
        self._ingresses.tasks.create_task(self._accept(frame))

    def on_broken(self, error: WireError) -> None:
        if not self.heartbeat.is_greeted:
            raise error
        super().on_broken(error)

    async def _accept(self, frame: Frame) -> None:
        try:
            await self._request_server.handle(frame.body)
        except Exception as error:
            self.connection.send(FrameKind.ERROR, frame.stream, encode_error(error))

    def _on_ingress_lost(self, _: IngressConnection) -> None:
        self._request_server.unauthenticated.remove(self.connection)
        self._ingresses.lost(self)


class TcpRequestServer:
    """A worker's `RequestServer`. Made by `tcp_request_server`."""

    def __init__(self) -> None:
        self.key = secrets.token_hex(32)
        self.reach = Dialable([], "")
        self.unauthenticated = UnauthenticatedConnections()
        self._handler: OnRequest | None = None

    async def handle(self, envelope: bytes) -> None:
        if self._handler is None:
            raise Unavailable("The worker takes no requests now.")
        await self._handler(envelope)

    @asynccontextmanager
    async def serve(
        self,
        record: InstanceRecord,  # noqa: ARG002 (it serves one instance)
        handler: OnRequest,
        load: Callable[[], Load] = Load,  # noqa: ARG002 (a PONG carries it)
    ) -> AsyncIterator[None]:
        self._handler = handler
        try:
            yield
        finally:
            self._handler = None


@asynccontextmanager
async def tcp_request_server(
    ingresses: IngressConnections,
    host: str = "127.0.0.1",
    *,
    advertise: str | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[TcpRequestServer]:
    """Listens for ingresses. Raises UsageError. Leave it before `ingresses`."""
    requests = TcpRequestServer()
    port = port_of(advertise)
    server = await start_server(
        lambda: AcceptedIngress(requests, ingresses).connection, host, port, tls
    )
    port = server.sockets[0].getsockname()[1]
    requests.reach = dialable(host, port, advertise, is_tls=tls is not None)
    try:
        yield requests
    finally:
        server.close()
        requests.unauthenticated.close()
