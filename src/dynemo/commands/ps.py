"""`dynemo-run ps`: the registered instances with their load, as a table or as JSON."""

import asyncio
import json
import logging
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from msgspec import DecodeError

from dynemo.app.networking import open_discovery
from dynemo.app.settings.options import Config
from dynemo.commands.loads import loads
from dynemo.errors import Unavailable
from dynemo.foreign import decode_msgpack
from dynemo.messages.records import InstanceRecord, Load, LoadReport
from dynemo.planes.discovery.base import ROOT, instances_prefix
from dynemo.planes.discovery.discovery import Discovery
from dynemo.planes.names import ENDPOINT, NAMESPACE, EndpointName
from dynemo.router.breaker import FAILURES
from dynemo.spelling import quoted, visible

_LATEST = 2.0**40  #: unix seconds

log = logging.getLogger("dynemo.ps")

WATCH_SECONDS = 2.0
_HEADS = (
    "NAME", "MODEL", "INSTANCE", "ENGINE", "VERSION", "DEVICE",
    "RUNNING", "WAITING", "KV", "SLOTS", "CONTEXT", "AGE",
)  # fmt: skip
_NUMBERS = frozenset(_HEADS[_HEADS.index("RUNNING") :])
_LOAD = ("running", "waiting", "kv_use")
_CLEAR = "\x1b[H\x1b[2J"


def ps(config: Config, *, as_json: bool, is_watching: bool) -> int:
    """Prints the instances, once or until Ctrl-C. Raises UsageError if discovery is away."""
    # The row of an instance shows that it does not answer; the log need not say it again.
    logging.getLogger("dynemo.requests").setLevel(logging.ERROR)
    return asyncio.run(_ps(config, as_json=as_json, is_watching=is_watching))


async def _ps(config: Config, *, as_json: bool, is_watching: bool) -> int:
    is_screen = is_watching and not as_json and sys.stdout.isatty()
    printed: list[str] = []
    async with open_discovery(config) as discovery, loads(config) as asking:
        while True:
            try:
                records = await read_records(discovery)
            except Unavailable as error:
                if not is_watching:
                    raise
                notes = [str(error)]
            else:
                busy = await asking.ask(records)
                make = partial(to_json, is_line=is_watching) if as_json else to_table
                print(_CLEAR if is_screen else "", visible(make(records, busy)), sep="", flush=True)
                unknown = [f"Some loads are unknown. {why}" for why in asking.troubles]
                notes = [*conflicts(records), *failing(records, busy), *unknown]
            if is_screen or notes != printed:
                for note in notes:
                    print(visible(f"dynemo-run: {note}"), file=sys.stderr)
            printed = notes
            if not is_watching:
                return 0
            await asyncio.sleep(WATCH_SECONDS)


async def read_records(discovery: Discovery) -> list[InstanceRecord]:
    """The instances of all namespaces, by name, model and age. Raises Unavailable."""
    records = []
    for namespace in sorted(_namespaces(await discovery.keys(ROOT))):
        prefix = instances_prefix(EndpointName(namespace, "", ENDPOINT))
        for key, value in (await discovery.read(prefix)).items():
            try:
                record = decode_msgpack(value, InstanceRecord)
                if not 0 <= record.started < _LATEST:
                    raise DecodeError("Its start is not a time")
                records.append(record)
            except DecodeError as error:
                log.warning(
                    "The record %s does not decode (%s) and is left out.", quoted(key), error
                )
    return sorted(records, key=lambda record: (_name(record), record.model, record.started))


def _namespaces(keys: Iterable[str]) -> set[str]:
    """Reads only the names, because the values of blobs are large."""
    parts = (key.split("/") for key in keys)
    return {part[2] for part in parts if len(part) > 3 and part[3] == "instances"}


def conflicts(records: Iterable[InstanceRecord]) -> list[str]:
    """A sentence for each model whose instances differ in their cards."""
    cards: dict[tuple[str, str, str], set[str]] = {}
    for record in records:
        if record.replaces:
            continue  # it is another generation, as it should be
        key = (record.namespace, _name(record), record.model)
        cards.setdefault(key, set()).add(record.identity)
    return [
        f"Instances of {_plain(model)} in {_plain(namespace)} have different cards (`identity` in "
        "--json), and an ingress uses those of one card only; stop the wrong ones."
        for (namespace, _, model), found in cards.items()
        if len(found) > 1
    ]


def failing(records: Iterable[InstanceRecord], loads: Mapping[str, Load]) -> list[str]:
    """A sentence for each instance whose engine has failed its last requests."""
    found = ((record, loads.get(record.instance.id)) for record in records)
    return [
        f"The engine of instance {_plain(record.instance.id[:12])} of {_plain(record.model)} has "
        f"failed the last {load.failures} requests. Read its log, or stop it."
        for record, load in found
        if isinstance(load, LoadReport) and load.failures >= FAILURES
    ]


def to_table(records: Sequence[InstanceRecord], loads: Mapping[str, Load]) -> str:
    """`loads` is by instance id; a missing one is shown as `-`."""
    now = time.time()
    rows = [_HEADS, *(_row(each, loads.get(each.instance.id), now) for each in records)]
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


def to_json(
    records: Sequence[InstanceRecord], loads: Mapping[str, Load], *, is_line: bool = False
) -> str:
    """One document, with `is_line` on one line. A load that is not in `loads` is null."""
    now = time.time()
    entries = [_entry(each, loads.get(each.instance.id), now) for each in records]
    document = {"instances": entries}
    return json.dumps(document, indent=None if is_line else 2)


def _row(record: InstanceRecord, load: Load | None, now: float) -> tuple[str, ...]:
    instance = record.instance
    busy = ("-",) * 3
    if load is not None:
        busy = (str(load.running), str(load.waiting), f"{load.kv_use:.0%}")
    return (
        _name(record),
        _plain(record.model),
        _plain(instance.id[:12]),
        _plain(instance.engine),
        _plain(instance.version),
        _plain(instance.device),
        *busy,
        str(instance.slots),
        str(instance.context_length),
        _age(now - record.started),
    )


def _entry(record: InstanceRecord, load: Load | None, now: float) -> dict[str, Any]:
    instance = record.instance
    return {
        "namespace": record.namespace,
        "component": record.component,
        "endpoint": record.endpoint,
        "model": record.model,
        "identity": record.identity,
        "instance": instance.id,
        "engine": instance.engine,
        "version": instance.version,
        "device": instance.device,
        "load": None if load is None else {name: getattr(load, name) for name in _LOAD},
        "failures": load.failures if isinstance(load, LoadReport) else None,
        "slots": instance.slots,
        "context_length": instance.context_length,
        "started": record.started,
        "age_seconds": round(max(0.0, now - record.started), 1),
        "host": record.host,
        "hostname": record.hostname,
        "pid": record.pid,
    }


def _name(record: InstanceRecord) -> str:
    """The name in the form of the command line."""
    if (record.namespace, record.endpoint) == (NAMESPACE, ENDPOINT):
        return _plain(f"dyn://{record.component}")
    return _plain(str(EndpointName(record.namespace, record.component, record.endpoint)))


def _plain(text: str) -> str:
    """Without characters that control the terminal or break the table."""
    return "".join(char if char.isprintable() else "?" for char in text) or "-"


def _age(seconds: float) -> str:
    whole = max(0, int(seconds))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if whole >= 2 * size:
            return f"{whole // size}{unit}"
    return f"{whole}s"
