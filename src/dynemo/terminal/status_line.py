"""Shows a slow operation on standard error.

In a terminal it overwrites one line; otherwise it prints a plain line from time to time.
"""

import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from dynemo.spelling import visible

#: Seconds before a terminal shows the first line, between two updates of it, and between two plain
#: lines.
FIRST_SECONDS = 1.0
UPDATE_SECONDS = 0.2
LINE_SECONDS = 10.0


class StatusLine:
    def __init__(self) -> None:
        self._started = self._shown_at = monotonic()
        self._is_terminal = sys.stderr.isatty()
        self._is_drawn = False

    @property
    def seconds(self) -> int:
        """Seconds since the start."""
        return int(monotonic() - self._started)

    def is_due(self) -> bool:
        """Whether it is time for an update."""
        now = monotonic()
        if self._is_terminal:
            return now - self._started >= FIRST_SECONDS and now - self._shown_at >= UPDATE_SECONDS
        return now - self._shown_at >= LINE_SECONDS

    def show(self, text: str) -> None:
        self._shown_at = monotonic()
        text = visible(text).replace("\n", " ")
        if not self._is_terminal:
            print(text, file=sys.stderr, flush=True)
            return
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\x1b[K{text[:width]}", end="", file=sys.stderr, flush=True)
        self._is_drawn = True

    def clear(self) -> None:
        if self._is_drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._is_drawn = False


@contextmanager
def status_line() -> Iterator[StatusLine]:
    """Provides a status line and removes it at the end. Log lines appear above it."""
    line = StatusLine()

    def clear_first(_: logging.LogRecord) -> bool:
        line.clear()
        return True

    handlers = logging.getLogger().handlers[:]
    for handler in handlers:
        handler.addFilter(clear_first)
    try:
        yield line
    finally:
        line.clear()
        for handler in handlers:
            handler.removeFilter(clear_first)


def amount(count: float, total: float) -> str:
    """Formats an amount: `3.2 of 8.1 GB`, or "" if it is unknown."""
    if not count or not total:
        return ""
    last = gigabytes(total)
    unit = 1e9 if last.endswith("GB") else 1e6
    return f"{count / unit:.{1 if unit == 1e9 else 0}f} of {last}"


def gigabytes(count: float) -> str:
    """Formats a size: `3.2 GB`, `120 MB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
