"""The response plane at the ingress: a socket that workers dial, and the answers that are awaited.

A promise is made before its request is sent, so that an answer can never come before somebody
waits for it. Its token opens its stream once, for the instance that was asked; a worker that wakes
up late finds it gone.
"""

import asyncio
import hmac
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from dynemo.connection.addresses import (
    ANY,
    Dialable,
    close_links,
    dialable,
    host_id,
    port_of,
    serve_links,
)
from dynemo.connection.buffer import CancelReader, StreamBuffer
from dynemo.connection.heartbeat import Beat
from dynemo.connection.unauthenticated import UnauthenticatedConnections
from dynemo.errors import EngineLost
from dynemo.messages.records import Load
from dynemo.messages.wire import Envelope
from dynemo.planes.responses.incoming import WorkerConnection

#: Seconds from a request's acceptance to the worker's OPEN.
OPEN_SECONDS = 5.0
_MAX_FORGOTTEN = 1024


class PendingStream:
    """One awaited answer. `close` it in any case: that cancels what has not ended."""

    def __init__(
        self,
        responses: "ResponseListener",
        stream: int,
        instance_id: str,
        cancel_reader: CancelReader | None,
    ) -> None:
        self.stream = stream
        self.token = secrets.token_bytes(16)
        self.instance_id = instance_id
        self.buffer = StreamBuffer(cancel_reader)
        self.request = b""
        self._responses = responses
        self._connection: WorkerConnection | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def envelope(self, request: bytes, *, is_carried: bool) -> Envelope:
        """What the worker must get. A request that is not carried goes on the stream once open."""
        self.request = b"" if is_carried else request
        reach = self._responses.reach
        return Envelope(
            key=self._responses.key,
            addresses=reach.addresses,
            loopback=reach.loopback,
            host=host_id() if reach.loopback else "",
            stream=self.stream,
            token=self.token,
            request=request if is_carried else b"",
        )

    def expect(self, seconds: float) -> None:
        """The worker has accepted: it has so long to open the stream, or counts as lost."""
        if self._connection is None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(seconds, self._expire, seconds)

    def bind(self, connection: WorkerConnection) -> None:
        self._connection = connection
        if self._deadline is not None:
            self._deadline.cancel()

    def close(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if self._connection is not None:
            self._connection.drop(self.stream)
        else:
            self._responses.forget(self)

    def _expire(self, seconds: float) -> None:
        self._responses.forget(self)
        name = self.instance_id[:8]
        self.buffer.fail(
            EngineLost(f"Worker {name} accepted the request and did not answer in {seconds:g} s.")
        )


class ResponseListener:
    """What one ingress awaits, and the connections that bring it. Made by `listen`.

    `reach` is where workers dial; `key` proves to this process that they were asked by it.
    """

    def __init__(self, reach: Dialable, beat: Beat) -> None:
        self.key = secrets.token_bytes(32)
        self.reach = reach
        self.beat = beat
        self.open_seconds = OPEN_SECONDS
        self._numbers = count(1)
        self._awaited: dict[int, PendingStream] = {}
        self._forgotten: dict[int, bytes] = {}
        self._strangers = UnauthenticatedConnections()
        self._workers: dict[str, dict[WorkerConnection, None]] = {}

    def pending_stream(
        self, instance_id: str, cancel_reader: CancelReader | None = None
    ) -> PendingStream:
        """A stream that this instance may open, once. `cancel_reader`: see `Backend.generate`."""
        number = next(self._numbers)
        stream = self._awaited[number] = PendingStream(self, number, instance_id, cancel_reader)
        return stream

    def load_of(self, instance_id: str) -> Load | None:
        """What it last said that it is busy with; None while no connection to it is open."""
        connection = self._latest(instance_id)
        return connection.load if connection is not None else None

    def is_draining(self, instance_id: str) -> bool:
        """Whether it has said that it takes no further requests."""
        connection = self._latest(instance_id)
        return connection is not None and connection.is_draining

    def is_late(self, instance_id: str) -> bool:
        """Whether it owes a sign of life; False while no connection to it is open."""
        connection = self._latest(instance_id)
        return connection is not None and connection.heartbeat.is_late

    def opened_at(self, instance_id: str) -> float:
        """When it last opened a stream, in time or too late, on the clock of `time.monotonic`;
        0.0: never on the connection that it has now."""
        connection = self._latest(instance_id)
        return connection.opened_at if connection is not None else 0.0

    def accept(self) -> WorkerConnection:
        """For a connection that comes in."""
        incoming = WorkerConnection(self, self.beat)
        self._strangers.add(incoming.link)
        return incoming

    def forget(self, promise: PendingStream) -> None:
        """Gives up a promise that nobody has opened."""
        if self._awaited.pop(promise.stream, None) is not None:
            self._forgotten[promise.stream] = promise.token
            if len(self._forgotten) > _MAX_FORGOTTEN:
                del self._forgotten[next(iter(self._forgotten))]

    async def close(self) -> None:
        """Closes every connection: the workers cancel what they compute for this ingress."""
        self._strangers.close()
        links = [c.link for found in self._workers.values() for c in found]
        await close_links(links)

    def _latest(self, instance_id: str) -> WorkerConnection | None:
        connections = self._workers.get(instance_id)
        return next(reversed(connections)) if connections else None

    # Promises, for Incoming

    def opened(
        self, stream: int, token: bytes, connection: WorkerConnection
    ) -> PendingStream | None:
        promise = self._awaited.get(stream)
        if (
            promise is None
            or not hmac.compare_digest(promise.token, token)
            or promise.instance_id != connection.instance_id
        ):
            return None
        del self._awaited[stream]
        promise.bind(connection)
        return promise

    def was_awaited(self, stream: int, token: bytes) -> bool:
        return hmac.compare_digest(self._forgotten.get(stream, b""), token)

    def greeted(self, connection: WorkerConnection) -> None:
        self._strangers.remove(connection.link)
        self._workers.setdefault(connection.instance_id, {})[connection] = None

    def lost(self, connection: WorkerConnection) -> None:
        self._strangers.remove(connection.link)
        found = self._workers.get(connection.instance_id, {})
        found.pop(connection, None)
        if not found:
            self._workers.pop(connection.instance_id, None)


@asynccontextmanager
async def listen(
    host: str = ANY,
    *,
    advertise: str | None = None,
    tls: ssl.SSLContext | None = None,
    beat: Beat | None = None,
) -> AsyncIterator[ResponseListener]:
    """Listens for workers. Leaving closes every connection; streams still open are lost.

    `advertise` (HOST or HOST:PORT) is what workers are told to dial, instead of every address of
    this machine; its port is listened at. Raises UsageError for a bad one, and where the address
    cannot be listened at.
    """
    responses = ResponseListener(Dialable([], ""), beat or Beat())
    port = port_of(advertise)
    server = await serve_links(lambda: responses.accept().link, host, port, tls)
    port = server.sockets[0].getsockname()[1]
    responses.reach = dialable(host, port, advertise, is_tls=tls is not None)
    try:
        yield responses
    finally:
        server.close()
        await responses.close()
        await server.wait_closed()
