"""The limit of open files of this process, which also counts its connections."""

import logging
import resource
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

log = logging.getLogger("dynemo.descriptors")

#: The highest limits to ask for. Some systems have no limit, and refuse a very high one: macOS
#: allows 10,240.
_LIMITS = (2**20, 65_536, 10_240)
_RESERVE = 64
_LOG_SECONDS = 60.0
_NO_ACCEPT = "socket.accept() out of system resource"  # asyncio's words


def raise_limit() -> int:
    """Raises the soft limit towards the hard one. Returns the soft limit before."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in _LIMITS:
        wanted = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        if before == resource.RLIM_INFINITY or wanted <= before:
            break
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            break
    return before


def set_limit(limit: int) -> None:
    """Sets the soft limit, for a process that has inherited a raised one: code that uses `select`
    fails with high numbers."""
    with suppress(OSError, ValueError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


class DescriptorReserve:
    """The last descriptors of this process. They are for its own work: files, its engine, its
    peers. Clients must leave them free.

    The system gives the lowest number that is free. So a new connection's number says how many
    descriptors are in use at least.
    """

    def __init__(self) -> None:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        reserve = min(_RESERVE, limit // 8)
        is_endless = limit == resource.RLIM_INFINITY
        self._limit = limit
        self._begin = 2**31 if is_endless else limit - reserve
        self._last_half = 2**31 if is_endless else limit - reserve // 2
        self._logged = -_LOG_SECONDS

    def holds(self, descriptor: int) -> bool:
        """Whether a connection with this number takes a part of the reserve. Logs that, at most
        once a minute."""
        if descriptor < self._begin:
            return False
        if monotonic() - self._logged >= _LOG_SECONDS:
            self._logged = monotonic()
            log.error(
                "Nearly all of %d file descriptors are in use; new connections get status 503. "
                "Raise the limit with `ulimit -Hn`, or start more servers.",
                self._limit,
            )
        return True

    def is_ending(self, descriptor: int) -> bool:
        """Whether even an answer to this connection would cost too much."""
        return descriptor >= self._last_half


def log_lack_once(loop: "AbstractEventLoop") -> None:
    """Makes asyncio's own loop log a lack of descriptors once a minute. It reports each connection
    that it cannot accept, a thousand times a second. (uvloop closes them and reports nothing.)"""
    logged = -_LOG_SECONDS

    def handle(loop: "AbstractEventLoop", context: dict[str, Any]) -> None:
        nonlocal logged
        if context.get("message") != _NO_ACCEPT:
            loop.default_exception_handler(context)
        elif monotonic() - logged >= _LOG_SECONDS:
            logged = monotonic()
            log.error("All file descriptors are in use; new connections must wait.")

    loop.set_exception_handler(handle)
