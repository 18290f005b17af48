"""Prepares text for a terminal: a model's output must not control the terminal."""

import os
import sys

from dynemo.spelling import visible


def clean(text: str) -> str:
    """Returns `text` as valid Unicode: bytes that were not UTF-8 become U+FFFD."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def dim(text: str) -> str:
    """Returns `text` in a faint style if the terminal shows colours."""
    return _styled("2", text)


def red(text: str) -> str:
    """Returns `text` in red if the terminal shows colours."""
    return _styled("31", text)


def _styled(code: str, text: str) -> str:
    has_colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return f"\x1b[{code}m{visible(text)}\x1b[0m" if has_colours else visible(text)


def count(number: int, noun: str) -> str:
    """Formats a count: `1 turn`, `2 turns`, `1,000 turns`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def duration(seconds: float) -> str:
    """Formats a duration: `3.4 ms`, `12 ms`, `4.56 s`, `1 min 21 s`, `2 h 5 min`."""
    if seconds < 0.01:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds} s" if isinstance(seconds, int) else f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
