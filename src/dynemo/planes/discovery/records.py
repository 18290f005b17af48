"""Reads the records of instances. Every process that may write to discovery can write one.

A record that this module returns is safe to use: its names fit into subjects, messages and lines,
and its numbers are those of a real engine.
"""

import math
import re
from collections.abc import Iterable
from urllib.parse import unquote

from msgspec import DecodeError

from dynemo.foreign import msgpack_decoder
from dynemo.limits import (
    ADDRESS_CHARACTERS,
    ADDRESSES,
    CONTEXT_TOKENS,
    RECORD_BYTES,
    RECORD_CHARACTERS,
    RECORD_NAMES,
    SLOTS,
)
from dynemo.messages.records import Instance, InstanceRecord
from dynemo.planes.names import is_name_part

_KEY = re.compile(r"(?:[0-9a-f]{2}){0,64}")
_PROTOCOLS = 2**16

_decode = msgpack_decoder(InstanceRecord)


def read_record(key: str, value: bytes) -> InstanceRecord:
    """Raises DecodeError; its text is a clause about the record."""
    if len(value) > RECORD_BYTES:
        raise DecodeError(f"It has {len(value)} bytes, and a record has at most {RECORD_BYTES}")
    record = _decode(value)
    for problem in _problems(key, record):
        raise DecodeError(problem)
    return record


def _problems(key: str, record: InstanceRecord) -> Iterable[str]:
    parts = (record.namespace, record.component, record.endpoint, record.instance.id)
    if not all(map(is_name_part, parts)):
        yield "Its name may have only letters, digits, `-` and `_`"
    if unquote(key.rpartition("/")[2]) != record.instance.id:
        yield "It names another instance than its key does"
    if not (record.model and _is_text(record.model)):
        yield "The name of its model is empty, too long, or has control characters"
    if not all(map(_is_plain, (record.identity, record.card, record.host, record.hostname))):
        yield "A hash or a host in it is too long, or has other characters"
    if not _KEY.fullmatch(record.key):
        yield "Its key is not hexadecimal"
    addresses = [*record.addresses, record.loopback]
    if len(record.addresses) > ADDRESSES or not all(map(_is_plain, addresses)):
        yield "It has too many addresses, or an address that is not valid"
    if not math.isfinite(record.started) or not 0 <= record.pid < 2**32:
        yield "Its start or its process number is not valid"
    if not 0 <= record.weight <= 1:
        yield "Its weight is not valid"
    if not 0 <= record.weight <= 1:
        yield "Its weight is not a share from 0 to 1"
    if not (0 < record.oldest < _PROTOCOLS and 0 < record.newest < _PROTOCOLS):
        yield "Its versions of the protocol are not valid"
    yield from _problems_of(record.instance)


def _problems_of(instance: Instance) -> Iterable[str]:
    if not 0 < instance.context_length <= CONTEXT_TOKENS:
        yield f"Its context of {instance.context_length} tokens is not possible"
    if not 0 < instance.slots <= SLOTS:
        yield f"Its {instance.slots} slots are not possible"
    if not all(_is_text(text) for text in (instance.engine, instance.version, instance.device)):
        yield "Its description is too long, or has control characters"
    able = instance.capabilities
    lists = (able.tasks, able.sampling, able.guides, able.continues)
    if any(len(names) > RECORD_NAMES or not all(map(_is_text, names)) for names in lists):
        yield "It lists too many capabilities, or one with a name that is not valid"


def _is_text(text: str) -> bool:
    return len(text) <= RECORD_CHARACTERS and text.isprintable()


def _is_plain(text: str) -> bool:
    return len(text) <= ADDRESS_CHARACTERS and text.isascii() and text.isprintable()
