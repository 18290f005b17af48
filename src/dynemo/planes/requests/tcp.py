"""The request plane without NATS: the ingress dials the worker, whose address is in its record.

The ingress says HELLO with the key from the record and with its own; the worker answers with HELLO
as on a connection that it had dialled itself. From there on it *is* the connection of the response
plane between the two, and everything above is the same. A request is an OPEN towards the worker,
with the envelope; the worker accepts with its own OPEN, or refuses with ERROR. A PONG has its load.
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
    dial_link,
    dialable,
    first_of,
    port_of,
    serve_links,
    turned_away,
)
from dynemo.connection.client import raised
from dynemo.connection.framed import PROTOCOL
from dynemo.connection.server import failure
from dynemo.connection.unauthenticated import UnauthenticatedConnections
from dynemo.errors import InstanceGone, InstanceSilent, Unavailable, WireError
from dynemo.messages.records import InstanceRecord, Load
from dynemo.messages.wire import Envelope, Greeting
from dynemo.planes.requests.base import ASK_SECONDS, OnRequest
from dynemo.planes.responses.answering import IngressConnections
from dynemo.planes.responses.incoming import MAX_UNGREETED, WorkerConnection, decode_greeting
from dynemo.planes.responses.listen import ResponseListener
from dynemo.planes.responses.outgoing import IngressConnection
from dynemo.wire.frames import MAX_BODY, Frame, FrameKind

log = logging.getLogger("dynemo.requests")

_encode = msgpack.Encoder().encode
_ROOM = 4096  # for what an envelope holds besides the request
_MANY = 1024  # instances, after which what is left of gone ones is cleared away


class DialedWorker(WorkerConnection):
    """The ingress's side of a connection that it dialled. `confirmed`: whether HELLO came back."""

    def __init__(self, responses: ResponseListener, instance_id: str) -> None:
        super().__init__(responses, responses.beat, is_dialled_here=True, expected=instance_id)
        self.confirmed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._asked: dict[int, asyncio.Future[None]] = {}
        self._pinged: list[asyncio.Future[Load]] = []

    def is_idle(self) -> bool:
        return super().is_idle() and not self._asked

    def call(self, record: InstanceRecord, own_key: bytes) -> None:
        key = bytes.fromhex(record.key)
        greeting = Greeting(PROTOCOL, record.instance.id, key, own_key)
        self.link.send(FrameKind.HELLO, 0, _encode(greeting))

    async def ask(self, stream: int, envelope: bytes) -> None:
        """Raises what the worker refuses with, or InstanceGone when the connection is lost."""
        reply = self._asked[stream] = asyncio.get_running_loop().create_future()
        try:
            if not self.link.is_open:
                raise InstanceGone("The connection is closed.")
            self.link.send(FrameKind.OPEN, stream, envelope)
            await reply
        finally:
            del self._asked[stream]

    async def ask_load(self) -> Load:
        """Raises InstanceGone when the connection is lost."""
        if not self.link.is_open:
            raise InstanceGone("The connection is closed.")
        reply: asyncio.Future[Load] = asyncio.get_running_loop().create_future()
        self._pinged.append(reply)
        self.link.send(FrameKind.PING, 0)
        return await reply

    def on_connection(self, frame: Frame) -> None:
        super().on_connection(frame)
        if frame.kind == FrameKind.HELLO and not self.confirmed.done():
            self.confirmed.set_result(True)
        elif frame.kind == FrameKind.PONG:
            pinged, self._pinged = self._pinged, []
            for reply in pinged:
                if not reply.done():
                    reply.set_result(self.load)

    def on_stream(self, frame: Frame) -> None:
        super().on_stream(frame)
        reply = self._asked.get(frame.stream)
        if reply is None or reply.done():
            return
        if frame.kind == FrameKind.ERROR:
            reply.set_exception(raised(frame.body))
        else:
            reply.set_result(None)

    def on_lost(self) -> None:
        super().on_lost()
        if not self.confirmed.done():
            self.confirmed.set_result(False)
        waiting: list[asyncio.Future[Any]] = [*self._asked.values(), *self._pinged]
        for reply in waiting:
            if not reply.done():
                reply.set_exception(InstanceGone("The worker closed the connection."))


class TcpRequests:
    """An ingress's `RequestPlane`. `tls` is for the connections that it dials."""

    max_request = MAX_BODY - _ROOM

    def __init__(self, responses: ResponseListener, tls: ssl.SSLContext | None = None) -> None:
        self._responses = responses
        self._tls = tls
        self._calls: dict[str, DialedWorker] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._unreached: set[str] = set()  # that was said once in the log

    async def ask(
        self, record: InstanceRecord, envelope: Envelope, timeout: float = ASK_SECONDS
    ) -> None:
        name = record.instance.id[:8]
        body = _encode(envelope)
        known = self._calls.get(record.instance.id)
        try:
            async with asyncio.timeout(timeout):
                calling = await self._reach(record)
                try:
                    await calling.ask(envelope.stream, body)
                except InstanceGone:
                    if calling is not known:
                        raise
                    # It was closed, idle perhaps, while we wrote to it: the next one is fresh.
                    await (await self._reach(record)).ask(envelope.stream, body)
        except TimeoutError:
            raise InstanceSilent(f"Worker {name} did not reply in {timeout:g} s.") from None
        except ConnectionError as error:
            raise InstanceGone(f"Worker {name} cannot be reached: {error}.") from error

    async def load(self, record: InstanceRecord, timeout: float = ASK_SECONDS) -> Load:
        name = record.instance.id[:8]
        try:
            async with asyncio.timeout(timeout):
                return await (await self._reach(record)).ask_load()
        except TimeoutError:
            raise InstanceSilent(f"Worker {name} did not reply in {timeout:g} s.") from None
        except ConnectionError as error:
            raise InstanceGone(f"Worker {name} cannot be reached: {error}.") from error

    async def _reach(self, record: InstanceRecord) -> DialedWorker:
        name = record.instance.id
        async with self._locks.setdefault(name, asyncio.Lock()):
            calling = self._calls.get(name)
            if calling is None or not calling.link.is_open:
                calling = self._calls[name] = await self._dial(record)
                self._clear()
            return calling

    def _clear(self) -> None:
        if len(self._locks) > _MANY:
            self._calls = {name: call for name, call in self._calls.items() if call.link.is_open}
            self._locks = {name: lock for name, lock in self._locks.items() if lock.locked()}
            self._unreached.clear()

    async def _dial(self, record: InstanceRecord) -> DialedWorker:
        reach = Dialable(record.addresses, record.loopback)
        dial = partial(self._dial_one, record)
        addresses = reach.reached_from(record.host)
        try:
            _, calling = await first_of(addresses, dial, lambda found: found.link.abort())
        except ConnectionError as error:
            if record.instance.id not in self._unreached:
                self._unreached.add(record.instance.id)
                log.warning("cannot reach worker %s: %s", record.instance.id[:8], error)
            raise
        self._unreached.discard(record.instance.id)
        return calling

    async def _dial_one(self, record: InstanceRecord, address: str) -> DialedWorker:
        calling = DialedWorker(self._responses, record.instance.id)
        try:
            await dial_link(calling.link, address, self._tls)
            calling.call(record, self._responses.key)
            if not await calling.confirmed:
                raise turned_away(address)
        except BaseException:
            calling.link.abort()
            raise
        return calling


class AcceptedIngress(IngressConnection):
    """The worker's side of a connection that an ingress dialled."""

    def __init__(self, intake: "TcpRequestServer", answering: IngressConnections) -> None:
        super().__init__(answering.make_answers, answering.beat, self._lost, is_dialled_here=False)
        self._intake = intake
        self._answering = answering
        self.link.cap(MAX_UNGREETED)
        intake.strangers.add(self.link)

    def on_connection(self, frame: Frame) -> None:
        if frame.kind != FrameKind.HELLO:
            super().on_connection(frame)
            return
        try:
            greeting = decode_greeting(frame.body)
        except DecodeError as error:
            raise WireError(f"its HELLO does not decode: {error}") from error
        if not hmac.compare_digest(greeting.key.hex(), self._intake.key):
            raise WireError("its HELLO has a wrong key")
        if greeting.protocol != PROTOCOL:
            raise WireError(f"it speaks protocol {greeting.protocol}, not {PROTOCOL}")
        if greeting.instance != self._answering.instance_id:
            raise WireError("its HELLO names another instance")
        self.link.cap(MAX_BODY)
        self._intake.strangers.remove(self.link)
        self.greet(greeting.instance, greeting.answer_key)
        self._answering.adopt(greeting.answer_key, self)

    def on_stream(self, frame: Frame) -> None:
        if frame.kind == FrameKind.OPEN:
            self._answering.tasks.create_task(self._ask(frame))
        else:
            super().on_stream(frame)

    def on_broken(self, error: WireError) -> None:
        if not self.heartbeat.is_greeted:
            raise error
        super().on_broken(error)

    async def _ask(self, frame: Frame) -> None:
        try:
            await self._intake.handle(frame.body)
        except Exception as error:
            self.link.send(FrameKind.ERROR, frame.stream, failure(error))

    def _lost(self, _: IngressConnection) -> None:
        self._intake.strangers.remove(self.link)
        self._answering.lost(self)


class TcpRequestServer:
    """A worker's `Intake`. Made by `tcp_request_server`."""

    def __init__(self) -> None:
        self.key = secrets.token_hex(32)
        self.reach = Dialable([], "")
        self.strangers = UnauthenticatedConnections()
        self._handler: OnRequest | None = None

    async def handle(self, envelope: bytes) -> None:
        if self._handler is None:
            raise Unavailable("The worker takes no requests now.")
        await self._handler(envelope)

    @asynccontextmanager
    async def serve(
        self,
        record: InstanceRecord,  # noqa: ARG002 (one intake serves one)
        handler: OnRequest,
        load: Callable[[], Load] = Load,  # noqa: ARG002 (a PONG tells it)
    ) -> AsyncIterator[None]:
        self._handler = handler
        try:
            yield
        finally:
            self._handler = None


@asynccontextmanager
async def tcp_request_server(
    answering: IngressConnections,
    host: str = "127.0.0.1",
    *,
    advertise: str | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[TcpRequestServer]:
    """Listens for ingresses. Raises UsageError. To be left before `answering` is."""
    intake = TcpRequestServer()
    port = port_of(advertise)
    server = await serve_links(lambda: AcceptedIngress(intake, answering).link, host, port, tls)
    port = server.sockets[0].getsockname()[1]
    intake.reach = dialable(host, port, advertise, is_tls=tls is not None)
    try:
        yield intake
    finally:
        server.close()
        intake.strangers.close()
