"""Where the nodes of one engine meet: `--dist-init-addr`, checked before anything is loaded."""

import errno
import socket

from dynemo.errors import UsageError
from dynemo.messages.spec import Parallel

_FLAG = "--dist-init-addr"


def meeting_place(parallel: Parallel) -> tuple[str, int]:
    """Host and port. On rank 0, which listens there, they are tried. Raises UsageError."""
    host, _, digits = parallel.leader.rpartition(":")
    host = host.strip("[]")
    port = int(digits) if digits.isdecimal() else 0
    if not host or not 0 < port < 65536:
        raise UsageError(f"{_FLAG} takes HOST:PORT, not {parallel.leader!r}.")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UsageError(f"{_FLAG} names {host}, which is not known: {error.strerror}.") from None
    if parallel.rank == 0:
        _try((family, kind, proto), address, parallel.leader)
    return host, port


def _try(kind: tuple[int, int, int], address: object, leader: str) -> None:
    """Raises UsageError where rank 0 could not listen."""
    with socket.socket(*kind) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(address)  # type: ignore[arg-type]
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise UsageError(
                    f"The port of {_FLAG} {leader} is taken by another program; give a free one."
                ) from None
            raise UsageError(
                f"Rank 0 cannot listen at {_FLAG} {leader} ({error.strerror}): it is to be "
                "an address of rank 0's own machine."
            ) from None
