"""The response plane at the ingress: a socket that workers dial, and the streams that are pending.

A stream is registered before its request is sent, so an answer never arrives before somebody waits
for it. Its token opens the stream once, for the instance that was asked. A worker that opens it too
late gets ERROR.
"""

import asyncio
import hmac
import secrets
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from time import monotonic
from typing import NamedTuple

from dynemo.connection.addresses import (
    ANY,
    Dialable,
    close_connections,
    dialable,
    host_id,
    port_of,
    start_server,
)
from dynemo.connection.buffer import CancelReader, StreamBuffer
from dynemo.connection.heartbeat import Beat
from dynemo.connection.logged_peers import LoggedPeers
from dynemo.connection.unauthenticated import UnauthenticatedConnections
from dynemo.errors import DynemoError, InstanceLost
from dynemo.messages.records import Load
from dynemo.messages.wire import Envelope
from dynemo.planes.responses.incoming import WorkerConnection
from dynemo.wire import versions

#: Seconds from a request's acceptance to the worker's OPEN.
OPEN_SECONDS = 5.0
_MAX_FORGOTTEN = 1024


class TokenTimeouts(NamedTuple):
    """Seconds that a stream waits for its first and for each next token; 0: for ever."""

    first: float = 0.0
    next: float = 0.0


class PendingStream:
    """One stream that an instance was asked for. `close` it in any case: that cancels it."""

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
        """The message for the worker. A request that it does not carry follows after OPEN."""
        self.request = b"" if is_carried else request
        reach, spoken = self._responses.reach, versions.SPOKEN
        return Envelope(
            key=self._responses.key,
            addresses=reach.addresses,
            loopback=reach.loopback,
            host=host_id(),
            stream=self.stream,
            token=self.token,
            request=request if is_carried else b"",
            oldest=spoken.oldest,
            newest=spoken.newest,
        )

    def expect(self, seconds: float) -> None:
        """The worker has accepted. It counts as lost if it does not open the stream in time."""
        if self._connection is None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(seconds, self._expire, seconds)

    @property
    def is_accepted(self) -> bool:
        return self._deadline is not None

    def bind(self, connection: WorkerConnection) -> None:
        self._connection = connection
        if self._deadline is not None:
            self._deadline.cancel()
        if any(self._responses.token_timeouts):
            self._watch(monotonic())

    def close(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if self._connection is not None:
            self._connection.drop(self.stream)
        else:
            self._responses.forget(self)

    def _watch(self, opened: float) -> None:
        """Fails a stream that gets no tokens. Looks again when that could be the case."""
        timeouts, fed = self._responses.token_timeouts, self.buffer.fed_at
        limit = timeouts.next if fed else timeouts.first
        left = (fed or opened) + (limit or max(timeouts)) - monotonic()
        if limit and left <= 0:
            name = self.instance_id[:8]
            self.buffer.fail(InstanceLost(f"Worker {name} has sent no token for {limit:g} s."))
            return
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(max(left, 1.0), self._watch, opened)

    def _expire(self, seconds: float) -> None:
        name = self.instance_id[:8]
        error = InstanceLost(
            f"Worker {name} accepted the request and did not answer in {seconds:g} s."
        )
        self._responses.refuse(self.stream, error)


class ResponseListener:
    """The pending streams of one ingress, and its connections to workers. Made by `listen`.

    Workers dial `reach`. They prove with `key` that this process asked them.
    """

    def __init__(self, reach: Dialable, beat: Beat) -> None:
        self.key = secrets.token_bytes(32)
        self.reach = reach
        self.beat = beat
        self.open_seconds = OPEN_SECONDS
        self.token_timeouts = TokenTimeouts()
        self.refused = LoggedPeers()
        self._numbers = count(1)
        self._pending: dict[int, PendingStream] = {}  # streams in StreamState.PENDING
        self._forgotten: dict[int, bytes] = {}
        self._unauthenticated = UnauthenticatedConnections()
        self._workers: dict[str, dict[WorkerConnection, None]] = {}
        #: By instance id; each gets the id and every load that the instance reports.
        self.on_load: dict[str, Callable[[str, Load], None]] = {}

    def pending_stream(
        self, instance_id: str, cancel_reader: CancelReader | None = None
    ) -> PendingStream:
        """A stream that this instance may open, once. `cancel_reader`: see `Backend.generate`."""
        number = next(self._numbers)
        stream = self._pending[number] = PendingStream(self, number, instance_id, cancel_reader)
        return stream

    def load_of(self, instance_id: str) -> Load | None:
        """The last load that it sent; None while no connection to it is open."""
        connection = self._latest(instance_id)
        return connection.load if connection is not None else None

    def is_draining(self, instance_id: str) -> bool:
        """Whether it has asked for no further requests."""
        connection = self._latest(instance_id)
        return connection is not None and connection.is_draining

    def is_late(self, instance_id: str) -> bool:
        """Whether its answer to a ping is late; False while no connection to it is open."""
        connection = self._latest(instance_id)
        return connection is not None and connection.heartbeat.is_late

    def opened_at(self, instance_id: str) -> float:
        """When it last opened a stream, in time or too late, on the clock of `time.monotonic`; 0.0
        if never on its present connection."""
        connection = self._latest(instance_id)
        return connection.opened_at if connection is not None else 0.0

    def accept(self) -> WorkerConnection:
        """For a connection that a worker opens."""
        worker = WorkerConnection(self, self.beat)
        self._unauthenticated.add(worker.connection)
        return worker

    def forget(self, pending: PendingStream) -> None:
        """Gives up a stream that no worker has opened."""
        if self._pending.pop(pending.stream, None) is not None:
            self._forgotten[pending.stream] = pending.token
            if len(self._forgotten) > _MAX_FORGOTTEN:
                del self._forgotten[next(iter(self._forgotten))]

    async def close(self) -> None:
        """Closes every connection: the workers cancel what they compute for this ingress."""
        self._unauthenticated.close()
        await close_connections([w.connection for found in self._workers.values() for w in found])

    def _latest(self, instance_id: str) -> WorkerConnection | None:
        connections = self._workers.get(instance_id)
        return next(reversed(connections)) if connections else None

    # For WorkerConnection

    def is_pending(self, stream: int, instance_id: str) -> bool:
        pending = self._pending.get(stream)
        return pending is not None and pending.instance_id == instance_id

    def open(self, stream: int, token: bytes, connection: WorkerConnection) -> PendingStream | None:
        pending = self._pending.get(stream)
        if (
            pending is None
            or not hmac.compare_digest(pending.token, token)
            or pending.instance_id != connection.instance_id
        ):
            return None
        del self._pending[stream]
        pending.bind(connection)
        return pending

    def refuse(self, stream: int, error: DynemoError) -> None:
        pending = self._pending.get(stream)
        if pending is not None:
            self.forget(pending)
            pending.buffer.fail(error)

    def was_pending(self, stream: int, token: bytes) -> bool:
        return hmac.compare_digest(self._forgotten.get(stream, b""), token)

    def greeted(self, connection: WorkerConnection) -> None:
        self.refused.forget(connection.instance_id)
        self._unauthenticated.remove(connection.connection)
        self._workers.setdefault(connection.instance_id, {})[connection] = None

    def reported(self, connection: WorkerConnection) -> None:
        name = connection.instance_id
        if (on_load := self.on_load.get(name)) is not None:
            on_load(name, connection.load)

    def lost(self, connection: WorkerConnection) -> None:
        self._unauthenticated.remove(connection.connection)
        found = self._workers.get(connection.instance_id, {})
        found.pop(connection, None)
        if not found:
            self._workers.pop(connection.instance_id, None)
            self._lose_accepted(connection.instance_id)

    def _lose_accepted(self, instance_id: str) -> None:
        """A worker opens the stream that it accepts on its connection, which is lost."""
        for pending in list(self._pending.values()):
            if pending.instance_id == instance_id and pending.is_accepted:
                error = InstanceLost(f"Worker {instance_id[:8]} ended before its answer began.")
                self.refuse(pending.stream, error)


@asynccontextmanager
async def listen(
    host: str = ANY,
    *,
    advertise: str | None = None,
    tls: ssl.SSLContext | None = None,
    beat: Beat | None = None,
) -> AsyncIterator[ResponseListener]:
    """Listens for workers. Leaving closes every connection; streams still open are lost.

    `advertise` (HOST or HOST:PORT) is the address that workers dial, instead of every address of
    this machine; its port is the one to listen at. Raises UsageError for a bad one, and for an
    address that is not free.
    """
    responses = ResponseListener(Dialable([], ""), beat or Beat())
    port = port_of(advertise)
    server = await start_server(lambda: responses.accept().connection, host, port, tls)
    port = server.sockets[0].getsockname()[1]
    responses.reach = dialable(host, port, advertise, is_tls=tls is not None)
    try:
        yield responses
    finally:
        server.close()
        await responses.close()
        await server.wait_closed()
