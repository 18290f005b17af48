"""The file of keys: a line a key, with what it may do.

    # comment
    sk-4f1e2d...   name=alice  models=demo,org/other  rpm=60  tpm=100000  concurrency=4
    sk-98ab03...

Messages name lines, and never repeat what a line holds: a word that is out of place may be a key.
"""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from dynemo.errors import UsageError
from dynemo.http.access.share import KeyRules
from dynemo.limits import API_KEYS, KEY_FILE_BYTES
from dynemo.spelling import quoted

#: Printable ASCII, as a header needs it, without the comma that separates keys.
_KEY = re.compile(r"[!-+\--~]{1,512}")
#: `str.splitlines` has others, which nobody sees inside a comment.
_LINE_END = re.compile(r"\r\n|\n|\r")
_NAME = re.compile(r"[A-Za-z0-9._@/+-]{1,64}")
_FIELDS = ("name", "models", "rpm", "tpm", "concurrency")
KEY_FORM = "a key has up to 512 ASCII characters and no space or comma"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """`text` is secret: it is compared and never shown."""

    text: str
    rules: KeyRules

    def __repr__(self) -> str:
        return f"ApiKey({self.rules.name})"


def is_key(text: str) -> bool:
    return _KEY.fullmatch(text) is not None


def read_key_file(path: Path) -> list[ApiKey]:
    """Raises UsageError that names the file and the line."""
    try:
        text = _read(path)
    except OSError as error:
        raise _wrong(path, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _wrong(path, "is not text") from None
    keys: list[ApiKey] = []
    for number, line in enumerate(_LINE_END.split(text), 1):
        words = line.split()
        if words and not words[0].startswith("#"):
            try:
                keys.append(_parse(words, number))
            except ValueError as fault:
                raise _wrong(path, f"has a bad line {number}: {fault}") from None
    if not keys:
        raise _wrong(path, "holds no key; put a key on each line")
    if len(keys) > API_KEYS:
        raise _wrong(path, f"holds more than {API_KEYS} keys")
    if problem := conflict(keys):
        raise _wrong(path, problem)
    return keys


def conflict(keys: list[ApiKey]) -> str:
    """Describes what is wrong with these keys together; empty if nothing is."""
    owners: dict[str, str] = {}
    rules: dict[str, KeyRules] = {}
    for key in keys:
        name = key.rules.name
        if key.text in owners:
            return f"repeats the key of {owners[key.text]} for {name}; keep one"
        owners[key.text] = name
        if rules.setdefault(name, key.rules) != key.rules:
            return f"has other limits or models for each key of {name}; give them the same"
    return ""


def is_open_to_others(path: Path) -> bool:
    """Whether other users of this machine may read or change it."""
    return bool(os.stat(path).st_mode & (stat.S_IRWXO | stat.S_IWGRP))


def _read(path: Path) -> str:
    # A FIFO would block the open, and a device may never end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _wrong(path, "is not a regular file")
        data = file.read(KEY_FILE_BYTES + 1)
    if len(data) > KEY_FILE_BYTES:
        raise _wrong(path, f"is larger than {KEY_FILE_BYTES} bytes")
    return data.decode("utf-8-sig")


def _parse(words: list[str], number: int) -> ApiKey:
    """Raises ValueError(what is wrong)."""
    text, *fields = words
    if text.partition("=")[0] in _FIELDS:
        raise ValueError("it starts with a field; put the key first")
    if not is_key(text):
        raise ValueError(KEY_FORM)
    found: dict[str, str] = {}
    for field in fields:
        name, equals, value = field.partition("=")
        if name not in _FIELDS or not equals or name in found:
            raise ValueError(
                f"after the key, it has {', '.join(_FIELDS)} at most, each as NAME=VALUE"
            )
        found[name] = value
    name = found.get("name", f"line-{number}")
    if _NAME.fullmatch(name) is None:
        raise ValueError("a name has up to 64 letters, digits and . _ @ / + -")
    rates = (_whole(field, found.get(field)) for field in ("rpm", "tpm", "concurrency"))
    return ApiKey(text, KeyRules(name, _models(found.get("models")), *rates))


def _models(text: str | None) -> frozenset[str] | None:
    if text is None:
        return None
    names = frozenset(filter(None, text.split(",")))
    if not names:
        raise ValueError("models takes names with commas between them")
    return names


def _whole(field: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and int(text[:12]) >= 1 and len(text) <= 12):
        raise ValueError(f"{field} takes a whole number from 1 up")
    return int(text)


def _wrong(path: Path, why: str) -> UsageError:
    return UsageError(f"The file of --api-key-file, {quoted(str(path))}, {why}.")
