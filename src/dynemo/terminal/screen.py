"""Text for a person at a terminal: nothing a model writes may steer the terminal."""

import os
import sys

# C0 controls as their pictures (an ESC shows as a small sign), C1 as the replacement character;
# newline and tab stay, a carriage return would let text overwrite what stands before it.
_VISIBLE = (
    {code: 0x2400 + code for code in range(0x20)}
    | {0x7F: 0x2421}
    | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
)
del _VISIBLE[0x09], _VISIBLE[0x0A]
_VISIBLE_OR_NONE: dict[int, int | None] = {**_VISIBLE, 0x0D: None}


def visible(text: str) -> str:
    """`text` with its control characters made visible; only newlines and tabs still act."""
    return text if text.isprintable() else text.translate(_VISIBLE_OR_NONE)


def clean(text: str) -> str:
    """`text` as it can be sent on: bytes that were no UTF-8 when they were read become U+FFFD."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def dim(text: str) -> str:
    """`text`, faint where the terminal shows colours."""
    return _styled("2", text)


def red(text: str) -> str:
    """`text`, red where the terminal shows colours."""
    return _styled("31", text)


def _styled(code: str, text: str) -> str:
    has_colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return f"\x1b[{code}m{text}\x1b[0m" if has_colours else text


def count(number: int, noun: str) -> str:
    """`1 turn`, `2 turns`, `1,000 turns`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def duration(seconds: float) -> str:
    """`3.4 ms`, `12 ms`, `4.56 s`, `1 min 21 s`, `2 h 5 min`."""
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
