"""Why an engine's process ended, from its exit code and its last lines of output. Pure."""

import re
import signal
from collections.abc import Sequence
from itertools import takewhile

_EXCEPTION = re.compile(r"(?:^|[\])] )((?:\w+\.)*[A-Z]\w*(?:Error|Exception): \S.*)")
_MAX_CHARACTERS = 300  # of an exception, on a terminal
_LINES = 3


def ending(code: int, tail: Sequence[str]) -> str:
    """How the engine ended, as a sentence. `code` is `Popen.returncode`."""
    exit_code = f"exit code {code}" if code >= 0 else f"signal {_signal(-code)}"
    cause = _exception(tail)
    if not cause:
        if code == -signal.SIGKILL:
            exit_code += ", as the system does it to a process that takes too much memory"
        cause = " | ".join(_above_backtrace(tail)[-_LINES:])
    because = f": {cause.rstrip('. ')}" if cause else ""
    return f"The engine ended with {exit_code}{because}."


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time ones have no name
        return str(number)


def _above_backtrace(tail: Sequence[str]) -> list[str]:
    """The output of a Rust program, without its backtrace."""
    lines = list(takewhile(lambda line: line != "stack backtrace:", tail))
    return [line for line in lines if not line.startswith("note: ")]


def complaint(tail: Sequence[str]) -> str:
    """Why the engine did not load, as its log says: an exception, or the first error line."""
    errors = [line.partition(" E ")[2] for line in tail if " E " in line]  # as llama.cpp marks them
    cause = _exception(tail) or (errors[0] if errors else "")
    return f" It says: {cause.rstrip('. ')}." if cause else ""


def _exception(tail: Sequence[str]) -> str:
    """The last exception that ended a Python process of the engine, on one line."""
    for line in reversed(tail):
        if found := _EXCEPTION.search(line):
            text = found[1].rstrip(". ")
            return (
                text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS].rstrip()} ..."
            )
    return ""
