"""Reads one value from its text. Each function raises ValueError(what it takes) for a bad one."""

import math
from pathlib import Path

from dynemo.planes.discovery.backends import split_backend


def port(text: str) -> int:
    return _whole(text, "a port from 0 to 65535", 0, 65535)


def own_port(text: str) -> int:
    return _whole(text, "a port from 1 to 65535", 1, 65535)


def positive(text: str) -> int:
    return _whole(text, "a whole number from 1 up", 1)


def count(text: str) -> int:
    return _whole(text, "a whole number from 0 up", 0)


def share(text: str) -> float:
    takes = "a share from 0 to 1"
    try:
        number = float(text)
    except ValueError:
        raise ValueError(takes) from None
    if not 0 <= number <= 1:  # NaN fails too
        raise ValueError(takes)
    return number


def seconds(text: str) -> float:
    takes = "a number of seconds"
    try:
        number = float(text)
    except ValueError:
        raise ValueError(takes) from None
    if not 0 <= number < 1e9:  # NaN fails too
        raise ValueError(takes)
    return number


def path(text: str) -> Path:
    return Path(text).expanduser()


def host_port(text: str) -> tuple[str, int]:
    """`PORT` alone is one of this machine's loopback interface."""
    host, colon, number = text.rpartition(":")
    takes = "PORT or HOST:PORT"
    if colon and not host:
        raise ValueError(takes)
    return host.strip("[]") or "127.0.0.1", _whole(number, takes, 0, 65535)


def meeting_point(text: str) -> str:
    host, _, number = text.rpartition(":")
    takes = "HOST:PORT"
    _whole(number, takes, 1, 65535)
    if not host:
        raise ValueError(takes)
    return text


def several(text: str) -> tuple[str, ...]:
    """Values with commas between them."""
    words = tuple(word for word in map(str.strip, text.split(",")) if word)
    if not words:
        raise ValueError("a value, or several with commas between them")
    return words


def discovery(text: str) -> str:
    split_backend(text)
    return text


def _whole(text: str, takes: str, least: int, most: float = math.inf) -> int:
    try:
        number = int(text)
    except ValueError:
        raise ValueError(takes) from None
    if not least <= number <= most:
        raise ValueError(takes)
    return number
