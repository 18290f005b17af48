"""A batch's two files: the input, read line by line, and the output, which remembers how far it is.

Every complete line of the output begins with the key of its input line, in input order. So a run
that was interrupted, even killed, goes on after the last complete line; a torn last line is cut
off. An output that does not match the input line by line is somebody else's, and stays untouched.
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
from dynemo.terminal.batch.line import Key, OutputLine, key_of

#: Bytes of a line; a longer one is an error line.
MAX_LINE = 16 * 1024 * 1024


class InputLine(NamedTuple):
    number: int  #: from 1, blank lines counted
    data: bytes  #: stripped; the first MAX_LINE + 1 bytes of a line that is too long


class Written(NamedTuple):
    """What an output holds already."""

    ok: int
    failed: int


class _Seen(Key, frozen=True):
    error: str | None = None


def default_output(source: Path) -> Path:
    """`prompts.jsonl` is answered in `prompts.output.jsonl` beside it."""
    return source.with_name(f"{source.stem}.output{source.suffix or '.jsonl'}")


def open_source(source: Path) -> BinaryIO:
    """Raises UsageError for what is not a readable file."""
    try:
        file = source.open("rb")
    except OSError as error:
        raise UsageError(f"The batch {source} cannot be read: {error.strerror}.") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise UsageError(f"The batch {source} is not a file: a batch is counted and resumed.")
    return file


def count_lines(source: Path) -> tuple[int, int]:
    """How many lines there are to answer, and how many are blank."""
    blank = lines = 0
    with open_source(source) as file:
        for line in _all_lines(file):
            lines += bool(line.data)
            blank += not line.data
    return lines, blank


def read_lines(file: BinaryIO) -> Iterator[InputLine]:
    """The lines to answer: all that are not blank."""
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
        # Some editors begin a UTF-8 file with a byte order mark.
        yield InputLine(number, data.removeprefix(b"\xef\xbb\xbf") if number == 1 else data)


@contextmanager
def open_output(output: Path, source: Path) -> Iterator[FileIO]:
    """The output, made if need be and locked against a second run. Raises UsageError."""
    try:
        if output.exists() and output.samefile(source):
            raise UsageError("The output is the batch itself: name another file with --output.")
        fd = os.open(output, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UsageError(f"The output {output} cannot be written: {error.strerror}.") from None
    with FileIO(fd, "r+") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise UsageError(f"The output {output} is not a file: a batch is written to a file.")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"Another run is writing to {output}: wait for its end.") from None
        yield file


def resume(
    file: FileIO, lines: Iterator[InputLine], setup: bytes, output: Path
) -> tuple[Written, Iterator[InputLine]]:
    """What `file` holds already and which of `lines` are left; makes it ready for the next one.

    Raises UsageError, and changes nothing, where it holds no answers to `lines` under `setup`.
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
    """Whether `text` is what is left of a line that was being written for `key`."""
    start = msgspec.json.encode(key)[:-1] + b","
    return text.startswith(start) or start.startswith(text)


def _read(text: bytes) -> _Seen | None:
    try:
        return msgspec.json.decode(text, type=_Seen)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _foreign(output: Path, number: int) -> UsageError:
    return UsageError(
        f"{output} holds something else, from its line {number:,} on, than answers to this batch "
        "with this model and these settings: remove it, or name another file with --output."
    )


def write(file: FileIO, record: OutputLine) -> None:
    """Append one line: the system has it when this returns. Raises DynemoError."""
    data = msgspec.json.encode(record) + b"\n"
    try:
        while data:
            data = data[file.write(data) :]
    except OSError as error:
        raise DynemoError(f"The output cannot be written: {error.strerror}.") from error
