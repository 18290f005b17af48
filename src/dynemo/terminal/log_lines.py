"""Lines of the log, kept from tearing what a person is reading or typing."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler

#: Lines that are held back at most; more are let through.
MOST = 1000


@contextmanager
def held_log() -> Iterator[None]:
    """While an answer streams, the log's lines wait for its end."""
    root = logging.getLogger()
    before = root.handlers[:]
    held = [MemoryHandler(MOST, logging.CRITICAL, target=handler) for handler in before]
    root.handlers[:] = held
    try:
        yield
    finally:
        root.handlers[:] = before
        for handler in held:
            handler.close()


@contextmanager
def log_above() -> Iterator[None]:
    """Enter this where `sys.stderr` was replaced by what writes above a prompt or a bar: the log,
    which holds the real one, writes there too."""
    moved = [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.__stderr__
    ]
    for handler in moved:
        handler.setStream(sys.stderr)
    try:
        yield
    finally:
        for handler in moved:
            handler.setStream(sys.__stderr__)
