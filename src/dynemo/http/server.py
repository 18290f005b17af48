"""Runs the app on uvicorn, from a bound socket to the last stream's end."""

import asyncio
import contextlib
import errno
import re
import socket
import ssl
import struct
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dynemo.descriptors import DescriptorReserve
from dynemo.errors import Unavailable, UsageError
from dynemo.http.app import App
from dynemo.http.asgi import ABORT, SURPLUS
from dynemo.http.memory import return_large_blocks, return_small_blocks
from dynemo.limits import (
    BODY_CHUNKS,
    BODY_REST_SECONDS,
    HEAD_BYTES,
    HEAD_SECONDS,
    HEADERS,
    KEEP_ALIVE_SECONDS,
    PIPELINED_REQUESTS,
    SURPLUS_SECONDS,
)
from dynemo.spelling import quoted

BACKLOG = 2048
#: Bytes of an answer that the kernel buffers for a client. Its own default is 4 MB for each client
#: that reads slowly, which no bound of ours would count.
_UNSENT_BYTES = 128 * 1024
#: For the last event to clients whose streams were cancelled, and for connections to close.
_FAREWELL_SECONDS = 2.5


def bind(host: str, port: int, flag: str = "--http-port") -> socket.socket:
    """A listening socket, so that a port in use is known before a model is loaded.

    `host` is a name or an address, IPv6 too; port 0 picks a free one (`getsockname`). Clients may
    connect at once; they wait until `serve` runs. Raises UsageError that names `flag`.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"{flag} takes a port from 0 to 65535, not {quoted(str(port))}.")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        raise UsageError(
            f"Cannot listen on {quoted(host)}: there is no such host. Name another one."
        ) from None
    # `localhost` has both families; what prints `http://localhost:8080` is best served on IPv4.
    family, kind, protocol, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # not every system knows it; connections inherit it
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise UsageError(_why_not_bound(host, port, error, flag)) from None
    return listener


def _why_not_bound(host: str, port: int, error: OSError, flag: str) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"Port {port} on {host} is in use; choose another with {flag}."
        case errno.EACCES:
            return f"Port {port} needs more rights; choose one above 1023 with {flag}."
        case errno.EADDRNOTAVAIL:
            return f"Cannot listen on {host}: it is not an address of this machine."
        case _:
            return f"Cannot listen on {host} port {port}: {error.strerror}."


async def serve(
    app: App,
    *,
    listener: socket.socket,
    grace: float,
    stop: asyncio.Event,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Serves until `stop` is set. Then it takes no new requests, lets answers finish for `grace`
    seconds, cancels the rest and returns. Installs no signal handlers. Called once; closes
    `listener`.
    """
    return_large_blocks()
    server = _Server(
        uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            ssl_context_factory=None if tls is None else lambda *_: tls,
        )
    )
    try:
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(server.serve(sockets=[listener]))
            await server.is_ready.wait()
            trimming = tasks.create_task(return_small_blocks(lambda: app.room.arrived))
            await stop.wait()
            await _wind_down(app, server, serving, grace)
            trimming.cancel()
    finally:
        server.close()
        server.abort()
        listener.close()


async def _wind_down(
    app: App, server: "_Server", serving: asyncio.Task[None], grace: float
) -> None:
    """Cancelling it ends the grace: the answers that are left are then cancelled with an error, as
    they are when the time is up. Until then it still listens, so that a load balancer reads
    `draining` and clients get a 503."""
    app.drain()
    server.end_connections()
    try:
        async with asyncio.timeout(grace):
            await app.idle()
            server.close()
            await asyncio.wait([serving])
    except TimeoutError:
        pass
    finally:
        server.close()
        app.cancel(Unavailable("The server is shutting down."))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await app.idle()
                await asyncio.wait([serving])
    server.abort()
    await asyncio.wait([serving], timeout=_FAREWELL_SECONDS)
    serving.cancel()


class _Server(uvicorn.Server):
    """uvicorn's server, without its signal handlers, and with two ways to end it at once."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.server_state.reserve = DescriptorReserve()  # type: ignore[attr-defined]
        self.servers = []
        self.is_ready = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_ready.set()

    def end_connections(self) -> None:
        """Each connection closes after its next answer, and its client finds another server."""
        header = (b"connection", b"close")
        self.config.encoded_headers.append(header)
        self.server_state.default_headers.append(header)

    def close(self) -> None:
        """Stops accepting now; uvicorn itself looks only every tenth of a second."""
        self.should_exit = True
        for listener in self.servers:
            listener.close()

    def abort(self) -> None:
        """Drops the connections that are left: their clients do not read what was sent."""
        self.force_exit = True
        for connection in list(self.server_state.connections):
            connection.transport.abort()


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, with bounds on heads, bodies and pipelined requests, and a way to drop a
    connection."""

    # Slots: more attributes would push uvicorn's own out of the dict layout that instances
    # share, which costs 2 kB a connection.
    __slots__ = (
        "_head_bytes", "_head_timer", "_is_in_body", "_is_in_head", "_is_surplus", "_pieces",
    )  # fmt: skip

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._head_timer: asyncio.TimerHandle | None = None
        reserve: DescriptorReserve = self.server_state.reserve  # type: ignore[attr-defined]
        descriptor = transport.get_extra_info("socket").fileno()
        self._is_surplus = reserve.holds(descriptor)
        super().connection_made(transport)
        self._await_head()
        if reserve.is_ending(descriptor):
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and self._head_bytes > HEAD_BYTES and self.transport is not None:
            self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]
        scope["extensions"] = {ABORT: {"abort": self._reset}}
        if self._is_surplus:
            scope["extensions"][SURPLUS] = {}
        self._await_head()

    def _reset(self) -> None:
        """Closing alone would let the kernel send what it holds, for as long as that takes."""
        sock = self.transport.get_extra_info("socket")
        with contextlib.suppress(OSError):  # it has gone
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_in_head:
            return  # trailers after a chunked body have no reader and no bound
        if len(self.headers) >= HEADERS:  # each look-up of a header would walk through them
            raise ValueError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._is_in_body = True
        self._pieces = 0
        self._stop_timer()
        if len(self.pipeline) >= PIPELINED_REQUESTS:
            raise ValueError("too many requests at once")  # the parser stops, and answers 400
        if not self.url.startswith((b"/", b"*")):
            self._take_host_of_url()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._pieces += 1
        if self._pieces > BODY_CHUNKS:  # each costs a call, even if it holds one byte
            raise ValueError("too many chunks")
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_in_body = False
        self._stop_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._is_surplus:
            self.transport.close()
        if self._is_in_body and self.cycle.response_complete and not self.transport.is_closing():
            self._stop_timer()
            self._head_timer = self.loop.call_later(BODY_REST_SECONDS, self.transport.abort)

    def _take_host_of_url(self) -> None:
        """The host of an absolute URL replaces the Host header (RFC 9112, 3.2.2)."""
        _, _, rest = self.url.partition(b"://")
        host = re.split(rb"[/?#]", rest, maxsplit=1)[0]
        if [name for name, _ in self.headers].count(b"host") == 1:
            self.headers[:] = [(n, host if n == b"host" else v) for n, v in self.headers]

    def _await_head(self) -> None:
        self._is_in_head = True
        self._head_bytes = 0
        self._stop_timer()
        seconds = SURPLUS_SECONDS if self._is_surplus else HEAD_SECONDS
        self._head_timer = self.loop.call_later(seconds, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
