"""Lines of JSON in, a line of JSON out for each.

A wrong line gives `{"error": "..."}`, and the next one is read. Blank lines are skipped. Fields
that a command does not use are ignored, so that a file of expected results can be its input.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from msgspec import DecodeError

from dynemo.errors import RequestError, UsageError
from dynemo.foreign import decode_any_json
from dynemo.spelling import quoted


def write_lines(
    source: str | Path | Iterable[bytes],
    out: TextIO,
    answer: Callable[[Mapping[str, Any]], dict[str, object]],
) -> int:
    """Writes the answer to each line, and flushes it.

    `source` is a path, `-` for standard input, or lines. Returns the number of wrong lines. Raises
    UsageError for a file that cannot be read.
    """
    wrong = 0
    for number, line in enumerate(_lines(source), 1):
        if not line.strip():
            continue
        try:
            result = answer(_object(line, number))
        except RequestError as error:
            wrong += 1
            result = {"error": str(error)}
        out.write(json.dumps(result) + "\n")
        out.flush()
    return wrong


def _lines(source: str | Path | Iterable[bytes]) -> Iterator[bytes]:
    if not isinstance(source, str | Path):
        yield from source
    elif str(source) == "-":
        yield from sys.stdin.buffer
    else:
        try:
            with open(source, "rb") as file:
                yield from file
        except OSError as error:
            raise UsageError(
                f"Cannot read {quoted(str(source))}: {error.strerror or error}."
            ) from None


def _object(line: bytes, number: int) -> Mapping[str, Any]:
    try:
        value = decode_any_json(line)
    except DecodeError as error:
        raise RequestError(f"Line {number} is not valid JSON: {error}.") from None
    if not isinstance(value, dict):
        raise RequestError(f"Line {number} is not a JSON object.")
    return value
