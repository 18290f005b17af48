"""Ports for servers that tests start and restart at the same port.

The system gives other ports to programs that do not choose one. So no such program takes a port
between its choice here and the start of its server.
"""

import os
import random
import socket
from collections.abc import Iterator

_FIRST, _PER_WORKER, _WORKERS = 10_000, 2_000, 8


def free_port() -> int:
    """Returns a new port each time. Two processes of a parallel run never get the same port."""
    for port in _ports:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("This process has used all its ports.")


def _own_ports() -> Iterator[int]:
    """Yields the ports of this process in random order.

    Another run on this machine may use the same range.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = _FIRST + worker % _WORKERS * _PER_WORKER
    yield from random.Random().sample(range(first, first + _PER_WORKER), _PER_WORKER)


_ports = _own_ports()
