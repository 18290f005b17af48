"""Keeps log lines from breaking text that the user reads or types."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler

#: The most log lines to hold back. Beyond this number all are written.
MAX_HELD = 1000


@contextmanager
def held_log() -> Iterator[None]:
    """Holds back the log until the end of a streamed answer."""
    root = logging.getLogger()
    before = root.handlers[:]
    held = [MemoryHandler(MAX_HELD, logging.CRITICAL, target=handler) for handler in before]
    root.handlers[:] = held
    try:
        yield
    finally:
        root.handlers[:] = before
        for handler in held:
            handler.close()


@contextmanager
def log_above() -> Iterator[None]:
    """Writes the log above a prompt or a progress bar.

    Enter it after `sys.stderr` was replaced by a stream that writes there. The log's handlers still
    use the original stream, and are switched to the new one.
    """
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
