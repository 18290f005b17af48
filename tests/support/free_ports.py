"""Ports for servers that tests start, and start again at the same port.

The system hands out ports above these to programs that name none. So no other program gets a port
between its choice here and the start of its server.
"""

import os
import random
import socket
from collections.abc import Iterator

_FIRST, _PER_WORKER, _WORKERS = 10_000, 2_000, 8


def free_port() -> int:
    """Returns another one each time. Two processes of a parallel run never get the same."""
    for port in _ports:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("This process has used all its ports.")


def _own_ports() -> Iterator[int]:
    """In random order, since another run may be under way on this machine."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = _FIRST + worker % _WORKERS * _PER_WORKER
    yield from random.Random().sample(range(first, first + _PER_WORKER), _PER_WORKER)


_ports = _own_ports()
