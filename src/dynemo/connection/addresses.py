"""The addresses at which peers dial this process, and dialling one of several addresses.

Interface addresses come first and the loopback address last. Loopback is named separately, together
with a host id, and a peer dials it only if its own host id is the same. The host id identifies the
*network namespace* if the system reveals it: two containers of one image share a machine-id, but
not a loopback interface.

The address of a TLS socket starts with `tls://`, so that both sides know before they dial.
"""

import asyncio
import contextlib
import hashlib
import os
import socket
import ssl
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from dynemo.connection.framed import FramedConnection
from dynemo.connection.interfaces import interface_addresses
from dynemo.connection.tls import explain
from dynemo.errors import UsageError
from dynemo.spelling import quoted

ANY = ""  #: every address of this machine, IPv4 and IPv6
TLS = "tls://"
_LOOPBACK = "127.0.0.1"
_HANDSHAKE_SECONDS = 3.0
_STAGGER = 0.25  # seconds before the next address is tried beside the one under way
_CLOSE_SECONDS = 1.0
MAX_ADDRESSES = 16

T = TypeVar("T")


@cache
def host_id() -> str:
    """An id of this loopback interface: equal for two processes that share it."""
    parts: list[str] = []
    for path in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        with contextlib.suppress(OSError):
            parts.append(Path(path).read_text(encoding="ascii").strip())
    with contextlib.suppress(OSError):
        parts.append(str(os.stat("/proc/self/ns/net").st_ino))
    parts = parts or [str(uuid.getnode()), socket.gethostname()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Dialable:
    """The addresses at which peers dial a listening socket. `loopback` is for this host."""

    addresses: list[str]
    loopback: str

    def reached_from(self, host: str) -> list[str]:
        """The addresses that a peer with the host id `host` tries, in order."""
        same = [self.loopback] if self.loopback and host == host_id() else []
        return [*self.addresses[:MAX_ADDRESSES], *same]


def dialable(host: str, port: int, advertise: str | None, *, is_tls: bool = False) -> Dialable:
    """The addresses of a socket at `host` and `port`. Raises UsageError for a bad `advertise`."""

    def address(name: str, port: int) -> str:
        return (TLS if is_tls else "") + join_address(name, port)

    if advertise is not None:
        return Dialable([address(*split_address(advertise, port))], "")
    if host == ANY:
        addresses = [address(own, port) for own in interface_addresses()]
        return Dialable(addresses[:MAX_ADDRESSES], address(_LOOPBACK, port))
    if host == "localhost" or host.startswith("127.") or host == "::1":
        return Dialable([], address(host, port))
    return Dialable([address(host, port)], "")


def port_of(advertise: str | None) -> int:
    """The port to listen at: the one that `advertise` names, else 0. Raises UsageError."""
    return split_address(advertise, 0)[1] if advertise is not None else 0


def split_address(text: str, default_port: int | None = None) -> tuple[str, int]:
    """HOST:PORT, [V6]:PORT, or HOST if there is a default port. Raises UsageError."""
    host, colon, port = text.rpartition(":")
    is_bare = not colon or text.endswith("]") or (":" in host and not host.endswith("]"))
    if default_port is not None and is_bare and text.strip("[]"):
        return text.strip("[]"), default_port
    if is_bare or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"{quoted(text)} is not an address; give HOST:PORT.")
    return host.strip("[]"), int(port)


def join_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def start_server(
    make: Callable[[], FramedConnection], host: str, port: int, tls: ssl.SSLContext | None
) -> asyncio.Server:
    """Listens for framed connections. Raises UsageError that names the address."""
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(
            make, sock=_listener(host, port), backlog=1024, **_tls_arguments(tls)
        )
    except OSError as error:
        raise UsageError(
            f"Cannot listen at {join_address(host, port)}: {error.strerror or error}."
        ) from error


def _listener(host: str, port: int) -> socket.socket:
    """One socket for IPv4 and IPv6: two sockets would have two ports."""
    is_both = host == ANY and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if is_both or ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only if the socket names its protocol.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_both:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _tls_arguments(tls: ssl.SSLContext | None) -> dict[str, Any]:
    """Keyword arguments of an event loop, which it accepts only together with TLS."""
    if tls is None:
        return {}
    times = {"ssl_handshake_timeout": _HANDSHAKE_SECONDS, "ssl_shutdown_timeout": _CLOSE_SECONDS}
    return {"ssl": tls, **times}


async def connect(connection: FramedConnection, address: str, tls: ssl.SSLContext | None) -> None:
    """Dials an address. Raises OSError; its text names a mismatch of TLS settings."""
    if address.startswith(TLS) and tls is None:
        raise ConnectionError("it uses TLS, and this side has no --tls")
    if tls is not None and not address.startswith(TLS):
        raise ConnectionError("it does not use TLS, and this side has --tls")
    host, port = split_address(address.removeprefix(TLS))
    loop = asyncio.get_running_loop()
    try:
        await loop.create_connection(lambda: connection, host, port, **_tls_arguments(tls))
    except ssl.SSLError as error:
        raise ConnectionError(explain(error)) from error


def closed_before_hello(address: str, refusal: str = "") -> ConnectionError:
    """The error for a peer that closed the connection before its HELLO. `refusal` is what it said.

    Event loops do not send OpenSSL's alert, so a peer that refuses a certificate says nothing.
    """
    if refusal:
        return ConnectionError(refusal.rstrip("."))
    is_tls = address.startswith(TLS)
    why = ", perhaps because of this side's certificate: its log says why" if is_tls else ""
    return ConnectionError(f"it closed the connection{why}")


async def close_connections(connections: Sequence[FramedConnection]) -> None:
    """Closes them after what was sent has left, at most a second later."""
    for connection in connections:
        connection.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_CLOSE_SECONDS):
            for connection in connections:
                await connection.wait_closed()
    for connection in connections:
        connection.abort()


async def first_of(
    addresses: Sequence[str],
    dial: Callable[[str], Awaitable[T]],
    discard: Callable[[T], None],
) -> tuple[str, T]:
    """Dials the addresses in order, and starts the next one while a slow one is still pending.

    The first success wins, and the other attempts are cancelled; `discard` closes a second success
    of the same moment. Raises ConnectionError with the reason of each address.
    """
    waiting = list(addresses)
    running: dict[asyncio.Future[T], str] = {}
    reasons: dict[str, list[str]] = {}
    try:
        while waiting or running:
            if waiting:
                address = waiting.pop(0)
                running[asyncio.ensure_future(dial(address))] = address
            timeout = _STAGGER if waiting else None
            done, _ = await asyncio.wait(running, timeout=timeout, return_when="FIRST_COMPLETED")
            for task in done:
                address = running.pop(task)
                error = task.exception()
                if error is None:
                    return address, task.result()
                reasons.setdefault(str(error) or type(error).__name__, []).append(address)
        listed = [f"{', '.join(those)}: {reason}" for reason, those in reasons.items()]
        raise ConnectionError("; ".join(listed) or "it has no address to dial")
    finally:
        await _cancel(list(running), discard)


async def _cancel(tasks: "list[asyncio.Future[T]]", discard: Callable[[T], None]) -> None:
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        if not isinstance(ended, BaseException):
            discard(ended)
