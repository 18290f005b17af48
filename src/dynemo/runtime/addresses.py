"""Where this process can be dialled, and dialling one of several addresses.

An interface's address goes first and the loopback address last, which is said apart, together with
a host id: a peer dials it only when its own host id is the same. The id is one of a *network
namespace* where the system tells it (two containers of one image have one machine-id, and loopback
does not lead from one to the other).
"""

import asyncio
import contextlib
import hashlib
import os
import socket
import ssl
import struct
import sys
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from dynemo.errors import UsageError
from dynemo.link import Link

_LOOPBACK = "127.0.0.1"
_ANY = ("0.0.0.0", "::", "")
_GET_ADDRESS = {"linux": 0x8915, "darwin": 0xC0206921}  # SIOCGIFADDR
_STAGGER = 0.25  # seconds before the next address is tried beside the one under way
_CLOSE_SECONDS = 1.0
MAX_ADDRESSES = 16

T = TypeVar("T")


@cache
def host_id() -> str:
    """Says whose loopback interface this is: equal for two processes that share it."""
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
    """Where a listening socket can be reached. `loopback` is for those with the same host id."""

    addresses: list[str]
    loopback: str

    def reached_from(self, host: str) -> list[str]:
        """What a peer with the host id `host` tries, in order."""
        same = [self.loopback] if self.loopback and host == host_id() else []
        return [*self.addresses[:MAX_ADDRESSES], *same]


def dialable(host: str, port: int, advertise: str | None) -> Dialable:
    """Of a socket that listens at `host` and `port`. Raises UsageError for a bad `advertise`."""
    if advertise is not None:
        name, told_port = split_address(advertise, port)
        return Dialable([join_address(name, told_port)], "")
    if host in _ANY:
        addresses = [join_address(address, port) for address in interface_addresses()]
        return Dialable(addresses[:MAX_ADDRESSES], join_address(_LOOPBACK, port))
    if host == "localhost" or host.startswith("127.") or host == "::1":
        return Dialable([], join_address(host, port))
    return Dialable([join_address(host, port)], "")


def interface_addresses() -> list[str]:
    """This machine's IPv4 addresses but loopback; the one of the default route first."""
    found: list[str] = []
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing: asks the routing table only
        found.append(probe.getsockname()[0])
    if sys.platform in _GET_ADDRESS:
        found += _by_interface(_GET_ADDRESS[sys.platform])
    unique = list(dict.fromkeys(found))
    return [address for address in unique if not address.startswith(("127.", "0."))]


def _by_interface(request: int) -> list[str]:
    from fcntl import ioctl

    found: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # an interface without an address
                reply = ioctl(probe, request, struct.pack("256s", name[:15].encode()))
                found.append(socket.inet_ntoa(reply[20:24]))
    return found


def split_address(text: str, default_port: int | None = None) -> tuple[str, int]:
    """HOST:PORT, [V6]:PORT, or HOST where there is a default port. Raises UsageError."""
    host, colon, port = text.rpartition(":")
    if default_port is not None and (not colon or text.endswith("]")):
        return text.strip("[]"), default_port
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"{text!r} is no address: give HOST:PORT.")
    return host.strip("[]"), int(port)


def join_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def serve_links(
    make: Callable[[], Link], host: str, port: int, tls: ssl.SSLContext | None
) -> asyncio.Server:
    """Listens for framed connections. Raises UsageError that names the address."""
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(make, host, port, ssl=tls, backlog=1024)
    except OSError as error:
        raise UsageError(
            f"Cannot listen at {join_address(host, port)}: {error.strerror or error}."
        ) from error


async def dial_link(link: Link, address: str, tls: ssl.SSLContext | None) -> None:
    """Connects a link. Raises OSError (ssl.SSLError is one)."""
    host, port = split_address(address)
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: link, host, port, ssl=tls)


async def close_links(links: Sequence[Link]) -> None:
    """Closes them, after what was sent has left. A peer that takes nothing waits a second only."""
    for link in links:
        link.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_CLOSE_SECONDS):
            for link in links:
                await link.wait_closed()
    for link in links:
        link.abort()


async def first_of(
    addresses: Sequence[str],
    dial: Callable[[str], Awaitable[T]],
    discard: Callable[[T], None],
) -> tuple[str, T]:
    """Dials the addresses in order, the next beside the last one as soon as that takes long.

    The first that succeeds wins, and the others are given up; `discard` closes one that succeeded
    at the same time. Raises ConnectionError with what each one said.
    """
    waiting = list(addresses)
    running: dict[asyncio.Future[T], str] = {}
    reasons: list[str] = []
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
                reasons.append(f"{address}: {str(error) or type(error).__name__}")
        raise ConnectionError("; ".join(reasons) or "no address was given")
    finally:
        await _give_up(list(running), discard)


async def _give_up(tasks: "list[asyncio.Future[T]]", discard: Callable[[T], None]) -> None:
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        if not isinstance(ended, BaseException):
            discard(ended)
