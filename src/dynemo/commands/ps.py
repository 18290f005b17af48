"""`dynemo-run ps`: the instances that discovery names, as a table or as JSON."""

import asyncio
import json
import logging
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import DecodeError, msgpack

from dynemo.config import Config
from dynemo.errors import Unavailable
from dynemo.messages import Record
from dynemo.networking import open_discovery
from dynemo.runtime.discovery.base import ROOT, instances_prefix
from dynemo.runtime.discovery.discovery import Discovery
from dynemo.runtime.names import ENDPOINT, NAMESPACE, Address

log = logging.getLogger("dynemo.ps")

WATCH_SECONDS = 2.0
_HEADS = (
    "NAME", "MODEL", "INSTANCE", "ENGINE", "VERSION", "DEVICE", "LOAD", "SLOTS", "CONTEXT", "AGE",
)  # fmt: skip
_NUMBERS = frozenset({"SLOTS", "CONTEXT", "AGE"})
_CLEAR = "\x1b[H\x1b[2J"


def ps(config: Config, *, as_json: bool, is_watching: bool) -> int:
    """Prints what is registered, once or until Ctrl-C. Raises UsageError without its server."""
    return asyncio.run(_ps(config, as_json=as_json, is_watching=is_watching))


async def _ps(config: Config, *, as_json: bool, is_watching: bool) -> int:
    async with open_discovery(config) as discovery:
        is_screen = is_watching and not as_json and sys.stdout.isatty()
        while True:
            try:
                records = await read_records(discovery)
            except Unavailable as error:
                if not is_watching:
                    raise
                print(f"dynemo-run: {error}", file=sys.stderr)
            else:
                text = to_json(records, is_line=is_watching) if as_json else to_table(records)
                print(f"{_CLEAR if is_screen else ''}{text}", flush=True)
            if not is_watching:
                return 0
            await asyncio.sleep(WATCH_SECONDS)


async def read_records(discovery: Discovery) -> list[Record]:
    """The instances of all namespaces, by name, model and age. Raises Unavailable."""
    records = []
    for namespace in sorted(_namespaces(await discovery.keys(ROOT))):
        prefix = instances_prefix(Address(namespace, "", ENDPOINT))
        for key, value in (await discovery.read(prefix)).items():
            try:
                records.append(msgpack.decode(value, type=Record))
            except DecodeError as error:
                log.warning("%s does not decode: %s; passed over", key, error)
    return sorted(records, key=lambda record: (_name(record), record.model, record.started))


def _namespaces(keys: Iterable[str]) -> set[str]:
    """Of the names alone: the values of blobs are large."""
    parts = (key.split("/") for key in keys)
    return {part[2] for part in parts if len(part) > 3 and part[3] == "instances"}


def to_table(records: Sequence[Record]) -> str:
    now = time.time()
    rows = [_HEADS, *(_row(record, now) for record in records)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = zip(_HEADS, row, widths, strict=True)
        lines.append(
            "  ".join(
                cell.rjust(width) if head in _NUMBERS else cell.ljust(width)
                for head, cell, width in cells
            ).rstrip()
        )
    return "\n".join(lines)


def to_json(records: Sequence[Record], *, is_line: bool = False) -> str:
    """One document; on one line where many follow each other."""
    now = time.time()
    document = {"instances": [_entry(record, now) for record in records]}
    return json.dumps(document, indent=None if is_line else 2)


def _row(record: Record, now: float) -> tuple[str, ...]:
    instance = record.instance
    return (
        _name(record),
        _plain(record.model),
        _plain(instance.id[:12]),
        _plain(instance.engine),
        _plain(instance.version),
        _plain(instance.device),
        "-",  # discovery is told when an instance changes, and not at each request
        str(instance.slots),
        str(instance.context_length),
        _age(now - record.started),
    )


def _entry(record: Record, now: float) -> dict[str, Any]:
    instance = record.instance
    return {
        "namespace": record.namespace,
        "component": record.component,
        "endpoint": record.endpoint,
        "model": record.model,
        "instance": instance.id,
        "engine": instance.engine,
        "version": instance.version,
        "device": instance.device,
        "load": None,
        "slots": instance.slots,
        "context_length": instance.context_length,
        "started": record.started,
        "age_seconds": round(max(0.0, now - record.started), 1),
        "host": record.host,
        "pid": record.pid,
    }


def _name(record: Record) -> str:
    """As one would give it."""
    if (record.namespace, record.endpoint) == (NAMESPACE, ENDPOINT):
        return _plain(f"dyn://{record.component}")
    return _plain(str(Address(record.namespace, record.component, record.endpoint)))


def _plain(text: str) -> str:
    """What others have written must not steer the terminal, nor break the table."""
    return "".join(char if char.isprintable() else "?" for char in text) or "-"


def _age(seconds: float) -> str:
    whole = max(0, int(seconds))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if whole >= 2 * size:
            return f"{whole // size}{unit}"
    return f"{whole}s"
