"""Checks `--dist-init-addr`, where the nodes of one engine meet, before anything is loaded."""

import errno
import socket

from dynemo.errors import UsageError
from dynemo.messages.spec import Parallel
from dynemo.spelling import quoted

_FLAG = "--dist-init-addr"


def rendezvous_address(parallel: Parallel) -> tuple[str, int]:
    """Returns host and port. Rank 0, which listens there, tries to bind them. Raises UsageError."""
    host, _, digits = parallel.leader.rpartition(":")
    host = host.strip("[]")
    port = int(digits) if digits.isdecimal() else 0
    if not host or not 0 < port < 65536:
        raise UsageError(f"{_FLAG} takes HOST:PORT, not {quoted(parallel.leader)}.")
    try:
        family, socket_type, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
    except OSError as error:
        raise UsageError(
            f"{_FLAG} names the unknown host {quoted(host)}: {error.strerror}."
        ) from None
    if parallel.rank == 0:
        _try_to_bind((family, socket_type, proto), address, parallel.leader)
    return host, port


def _try_to_bind(family: tuple[int, int, int], address: object, leader: str) -> None:
    """Raises UsageError if rank 0 could not listen."""
    with socket.socket(*family) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(address)  # type: ignore[arg-type]
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise UsageError(
                    f"The port of {_FLAG} {leader} is in use by another program. Choose a free "
                    "port."
                ) from None
            raise UsageError(
                f"Rank 0 cannot listen on {_FLAG} {leader}: {error.strerror}. Use an address of "
                "rank 0's own machine."
            ) from None
