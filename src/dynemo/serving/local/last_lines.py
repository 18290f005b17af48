"""What an engine's process says of its own end, in its exit code and its last lines. Pure."""

import re
import signal
from collections.abc import Sequence
from itertools import takewhile

_EXCEPTION = re.compile(r"(?:^|[\])] )((?:\w+\.)*[A-Z]\w*(?:Error|Exception): \S.*)")
_LONGEST = 300  # characters of an exception that are worth a terminal's lines
_LINES = 3


def ending(code: int, tail: Sequence[str]) -> str:
    """How the engine has ended, as a sentence; `code` is that of `Popen.returncode`."""
    exit_code = f"exit code {code}" if code >= 0 else f"signal {_signal(-code)}"
    said = _exception(tail)
    if not said:
        if code == -signal.SIGKILL:
            exit_code += ", as the system does it to a process that takes too much memory"
        said = " | ".join(_above_backtrace(tail)[-_LINES:])
    words = f": {said.rstrip('. ')}" if said else ""
    return f"The engine ended with {exit_code}{words}."


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time ones have no name
        return str(number)


def _above_backtrace(tail: Sequence[str]) -> list[str]:
    """What a Rust program has said, without where it was then."""
    lines = list(takewhile(lambda line: line != "stack backtrace:", tail))
    return [line for line in lines if not line.startswith("note: ")]


def complaint(tail: Sequence[str]) -> str:
    """What the engine's log says of its failure to load: an exception, or the first error line."""
    errors = [line.partition(" E ")[2] for line in tail if " E " in line]  # as llama.cpp marks them
    said = _exception(tail) or (errors[0] if errors else "")
    return f" It says: {said.rstrip('. ')}." if said else ""


def _exception(tail: Sequence[str]) -> str:
    """The last exception that a Python among the engine's processes died of, on one line."""
    for line in reversed(tail):
        if found := _EXCEPTION.search(line):
            said = found[1].rstrip(". ")
            return said if len(said) <= _LONGEST else f"{said[:_LONGEST].rstrip()} ..."
    return ""
