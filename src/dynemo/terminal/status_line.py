"""What takes its time, on standard error: one line that is written over, or a plain one at times
where there is no terminal."""

import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

#: Seconds before a terminal is told at all, and between two plain lines.
PATIENCE = 1.0
LINE_SECONDS = 10.0


class StatusLine:
    def __init__(self) -> None:
        self.started = monotonic()
        self._is_terminal = sys.stderr.isatty()
        self._is_drawn = False
        self._said = self.started

    @property
    def seconds(self) -> int:
        return int(monotonic() - self.started)

    def show(self, text: str) -> None:
        """As often as one likes."""
        now = monotonic()
        if not self._is_terminal:
            if now - self._said >= LINE_SECONDS:
                self._said = now
                print(text, file=sys.stderr, flush=True)
        elif now - self.started >= PATIENCE:
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


def gigabytes(count: float) -> str:
    """`3.2 GB`, `120 MB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
