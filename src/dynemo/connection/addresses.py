"""The addresses at which peers dial this process, and dialling one of several addresses.

Interface addresses come first and the loopback address last. Loopback is named separately, together
with a host id, and a peer dials it only if its own host id is the same. The host id identifies the
*network namespace* if the system reveals it: two containers may share a machine-id, but not a
loopback interface. `permitted.py` says which addresses are dialled at all.

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
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from dynemo.connection.framed import FramedConnection
from dynemo.connection.interfaces import interface_addresses
from dynemo.connection.permitted import is_loopback, refusal_of, resolved
from dynemo.connection.tls import explain
from dynemo.errors import UsageError
from dynemo.limits import ADDRESSES
from dynemo.spelling import quoted

ANY = ""  #: every address of this machine, IPv4 and IPv6
TLS = "tls://"
LOOPBACK = "127.0.0.1"
_HANDSHAKE_SECONDS = 3.0
_STAGGER = 0.25  # seconds before the next address is tried beside the one under way
_CLOSE_SECONDS = 1.0

T = TypeVar("T")


@cache
def host_id() -> str:
    """An id of this loopback interface: equal for two processes that share it."""
    return _hash(_boot_and_namespace() or [str(uuid.getnode()), socket.gethostname()])


@cache
def host_name() -> str:
    """Another id of this host, for everybody. The host id cannot be computed from it."""
    return _hash(["name", host_id()])


def is_this_host(host: str) -> bool:
    """Whether a peer's host id is ours."""
    return host in (host_id(), _host_id_of_0_1())


@cache
def _host_id_of_0_1() -> str:
    """It differs between a container in the host's network and the host."""
    parts = [*_content("/etc/machine-id"), *_boot_and_namespace()]
    return _hash(parts or [str(uuid.getnode()), socket.gethostname()])


def _boot_and_namespace() -> list[str]:
    parts = _content("/proc/sys/kernel/random/boot_id")
    with contextlib.suppress(OSError):
        parts.append(str(os.stat("/proc/self/ns/net").st_ino))
    return parts


def _content(path: str) -> list[str]:
    try:
        return [Path(path).read_text(encoding="ascii").strip()]
    except OSError:
        return []


def _hash(parts: list[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Dialable:
    """The addresses at which peers dial a listening socket. `loopback` is for this host."""

    addresses: list[str]
    loopback: str

    def reached_from(self, host: str) -> list[str]:
        """The addresses that this process tries, in order, if `host` is the peer's host id."""
        same = [self.loopback] if self.loopback and is_this_host(host) else []
        return list(dict.fromkeys([*self.addresses[:ADDRESSES], *same]))


def dialable(host: str, port: int, advertise: str | None, *, is_tls: bool = False) -> Dialable:
    """The addresses of a socket at `host` and `port`. Raises UsageError for a bad `advertise`."""

    def address(name: str, port: int) -> str:
        return (TLS if is_tls else "") + join_address(name, port)

    if advertise is not None:
        name, port = split_address(advertise, port)
        if is_loopback(name):
            return Dialable([address(name, port)], address(name, port))
        _check_advertised(advertise, name)
        return Dialable([address(name, port)], "")
    if host == ANY:
        addresses = [address(own, port) for own in interface_addresses()]
        return Dialable(addresses[:ADDRESSES], address(LOOPBACK, port))
    if is_loopback(host):
        # Both: release 0.1 compares another host id.
        return Dialable([address(host, port)], address(host, port))
    return Dialable([address(host, port)], "")


def _check_advertised(text: str, host: str) -> None:
    with contextlib.suppress(ValueError):
        ip_address(host)
        if reason := refusal_of(host, is_same_host=True):
            raise UsageError(
                f"--advertise {text} cannot be used: {reason}. Give an address that the other "
                "machines can reach."
            )


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


def host_of(url: str) -> str:
    """The host of a server's URL, HOST:PORT or HOST; empty if there is none."""
    try:
        return urlsplit(url if "://" in url else f"//{url}").hostname or ""
    except ValueError:
        return ""


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


async def connect(
    connection: FramedConnection,
    address: str,
    tls: ssl.SSLContext | None,
    *,
    is_same_host: bool,
) -> None:
    """Dials an address that a peer has named. `is_same_host`: loopback is permitted.

    Raises OSError; its text names a mismatch of TLS settings, or why the address is not dialled.
    """
    if address.startswith(TLS) and tls is None:
        raise ConnectionError("it uses TLS, and this side has no --tls")
    if tls is not None and not address.startswith(TLS):
        raise ConnectionError("it does not use TLS, and this side has --tls")
    try:
        host, port = split_address(address.removeprefix(TLS))
    except UsageError:
        raise ConnectionError("it is not an address") from None
    problem: OSError | None = None
    for ip in await resolved(host, port, is_same_host=is_same_host):
        try:
            await _dial(connection, host, ip, port, tls)
        except ssl.SSLError as error:
            raise ConnectionError(explain(error)) from error
        except OSError as error:
            problem = error
        else:
            return
    assert problem is not None
    raise problem


async def _dial(
    connection: FramedConnection, host: str, ip: str, port: int, tls: ssl.SSLContext | None
) -> None:
    """Dials `ip`, the address of `host`, which the certificate must name."""
    arguments = _tls_arguments(tls)
    if tls is not None:
        arguments["server_hostname"] = host
    await asyncio.get_running_loop().create_connection(lambda: connection, ip, port, **arguments)


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
