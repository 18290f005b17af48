"""The two files of a batch: the input, and the output, which records the progress.

Every complete line of the output begins with the key of its input line, in input order. So an
interrupted or killed run resumes after the last complete line, and removes an incomplete one. An
output that does not match the input line by line belongs to something else, and is not changed.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from dynemo.errors import DynemoError, UsageError
from dynemo.foreign import decode_json
from dynemo.terminal.batch.line import Key, OutputLine, key_of

#: The most bytes per line. A longer line becomes an error line.
MAX_LINE = 16 * 1024 * 1024


class InputLine(NamedTuple):
    number: int  #: from 1; blank lines count
    data: bytes  #: stripped; the first MAX_LINE + 1 bytes of a line that is too long


class Written(NamedTuple):
    """How many answers and errors an output already holds."""

    ok: int
    failed: int


class _Seen(Key, frozen=True):
    error: str | None = None


def default_output(source: Path) -> Path:
    """Returns the default output: `prompts.output.jsonl` beside `prompts.jsonl`."""
    return source.with_name(f"{source.stem}.output{source.suffix or '.jsonl'}")


def open_source(source: Path) -> BinaryIO:
    """Opens the input. Raises UsageError if it is not a readable file."""
    try:
        file = source.open("rb")
    except OSError as error:
        raise UsageError(f'The batch "{source}" cannot be read: {error.strerror}.') from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise UsageError(
            f'The batch "{source}" is not a regular file. Only files can be counted and resumed.'
        )
    return file


def count_lines(source: Path) -> tuple[int, int]:
    """Returns the number of lines to answer, and the number of blank lines."""
    blank = lines = 0
    with open_source(source) as file:
        for line in _all_lines(file):
            lines += bool(line.data)
            blank += not line.data
    return lines, blank


def read_lines(file: BinaryIO) -> Iterator[InputLine]:
    """Yields the lines to answer: all lines that are not blank."""
    return (line for line in _all_lines(file) if line.data)


def _all_lines(file: BinaryIO) -> Iterator[InputLine]:
    number = 0
    while data := file.readline(MAX_LINE + 1):
        number += 1
        if len(data) > MAX_LINE and not data.endswith(b"\n"):
            rest = data
            while rest and not rest.endswith(b"\n"):
                rest = file.readline(MAX_LINE)
        else:
            data = data.strip()
        # Some editors start a UTF-8 file with a byte order mark.
        yield InputLine(number, data.removeprefix(b"\xef\xbb\xbf") if number == 1 else data)


@contextmanager
def open_output(output: Path, source: Path) -> Iterator[FileIO]:
    """Opens the output, creates it if needed, and locks it against other runs.

    Raises UsageError.
    """
    try:
        if output.exists() and output.samefile(source):
            raise UsageError("The output is the batch itself. Name another file with --output.")
        fd = os.open(output, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UsageError(f'The output "{output}" cannot be written: {error.strerror}.') from None
    with FileIO(fd, "r+") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise UsageError(
                f'The output "{output}" is not a regular file. Name one with --output.'
            )
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f'Another run is writing to "{output}". Wait for its end.') from None
        yield file


def resume(
    file: FileIO, lines: Iterator[InputLine], setup: bytes, output: Path
) -> tuple[Written, Iterator[InputLine]]:
    """Returns what `file` already holds, and the `lines` that are left.

    Prepares it for the next line.

    Raises UsageError without changes if it does not hold answers to `lines` under `setup`.
    """
    ok = failed = end = 0
    with open(file.fileno(), "rb", closefd=False) as reader:
        while text := reader.readline(4 * MAX_LINE):
            line = next(lines, None)
            if line is None:
                raise _foreign(output, ok + failed + 1)
            key = key_of(line.number, line.data, setup)
            if not text.endswith(b"\n") and _may_begin(text, key):
                lines = chain([line], lines)
                break
            seen = _read(text)
            if seen is None or (seen.line, seen.input_hash) != (key.line, key.input_hash):
                raise _foreign(output, ok + failed + 1)
            failed += seen.error is not None
            ok += seen.error is None
            end += len(text)
    file.truncate(end)
    file.seek(end)
    return Written(ok, failed), lines


def _may_begin(text: bytes, key: Key) -> bool:
    """Whether `text` is the rest of a line that was being written for `key`."""
    start = msgspec.json.encode(key)[:-1] + b","
    return text.startswith(start) or start.startswith(text)


def _read(text: bytes) -> _Seen | None:
    try:
        return decode_json(text, _Seen)
    except msgspec.DecodeError:
        return None


def _foreign(output: Path, number: int) -> UsageError:
    return UsageError(
        f'"{output}" is not the output of this batch with this model and these settings: its line '
        f"{number:,} differs. Remove it, or name another file with --output."
    )


def write(file: FileIO, record: OutputLine) -> None:
    """Appends one line and passes it to the operating system. Raises DynemoError."""
    data = msgspec.json.encode(record) + b"\n"
    try:
        while data:
            data = data[file.write(data) :]
    except OSError as error:
        raise DynemoError(f"The output cannot be written: {error.strerror}.") from error
