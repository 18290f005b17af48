"""What takes its time, on standard error: one line that is written over, or a plain one at times
where there is no terminal."""

import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

#: Seconds before a terminal is told at all, between two changes of its line, and between two
#: plain ones.
PATIENCE = 1.0
TICK = 0.2
LINE_SECONDS = 10.0


class StatusLine:
    def __init__(self) -> None:
        self._started = self._told = monotonic()
        self._is_terminal = sys.stderr.isatty()
        self._is_drawn = False

    @property
    def seconds(self) -> int:
        """Since the beginning."""
        return int(monotonic() - self._started)

    def is_due(self) -> bool:
        """Whether it is time to show something."""
        now = monotonic()
        if self._is_terminal:
            return now - self._started >= PATIENCE and now - self._told >= TICK
        return now - self._told >= LINE_SECONDS

    def show(self, text: str) -> None:
        self._told = monotonic()
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
    """A line that is gone on leaving. The log's lines stand above it."""
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
    """`3.2 of 8.1 GB`; empty where nothing is known."""
    if not count or not total:
        return ""
    last = gigabytes(total)
    unit = 1e9 if last.endswith("GB") else 1e6
    return f"{count / unit:.{1 if unit == 1e9 else 0}f} of {last}"


def gigabytes(count: float) -> str:
    """`3.2 GB`, `120 MB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
