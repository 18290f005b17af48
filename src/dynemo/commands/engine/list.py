"""`dynemo-run engine list`: which engines are installed, and what each can do."""

import platform
import shutil
import sys
import textwrap
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from msgspec import Struct, json

from dynemo.environments.entry import EngineEntry
from dynemo.environments.find import EnginePython, distributions, locate, version_in
from dynemo.environments.registry import ENGINES
from dynemo.errors import EngineNotInstalled, UsageError
from dynemo.spelling import visible, visible_json


class Row(Struct, frozen=True, kw_only=True):
    engine: str
    is_installed: bool
    version: str
    device: str  #: the device of its build; empty if that is unknown
    python: str
    origin: str  #: how it was found
    problem: str  #: why an installed engine cannot be used
    workarounds: list[str]
    models: list[str]
    takes: str
    gives: str
    n: bool = True  #: several answers to one request: every engine can
    guided: list[str]  #: the forms of guided decoding
    logprobs: bool
    embeddings: bool
    prefix_cache: str  #: how the prompts of API keys are kept apart in it
    tensor_parallel: bool
    multi_node: bool


#: The columns about what an engine can do, by heading: the README has this table, too.
ABILITIES = (
    ("models", "models"),
    ("in", "takes"),
    ("out", "gives"),
    ("n", "n"),
    ("guided", "guided"),
    ("logprobs", "logprobs"),
    ("embeddings", "embeddings"),
    ("prefix cache", "prefix_cache"),
    ("tensor parallel", "tensor_parallel"),
    ("multi-node", "multi_node"),
)
_INSTALLED = (("installed", "version"), ("device", "device"), ("found as", "origin"))
_TIED = "\N{NO-BREAK SPACE}"
_CELLS = {
    "gguf": "GGUF",
    "checkout": "checkout",
    "engine": "engine folder",
    "json_schema": "JSON",
    "grammar": "GBNF",
    "lark": "Lark",
    "structural_tag": "tags",
}


def list_engines(*, as_json: bool) -> int:
    rows = [describe(entry) for entry in ENGINES.values()]
    if as_json:
        print(visible_json(json.format(json.encode(rows), indent=2).decode()))
        return 0
    lines = _table(rows)
    width = shutil.get_terminal_size().columns
    if sys.stdout.isatty() and max(map(len, lines)) > width:
        lines = _blocks(rows, width)
    print(visible("\n".join(lines)))
    for row in rows:
        for text in (row.problem, *row.workarounds):
            if text:
                print(visible(f"\n{row.engine}: {text}"), end="")
    if any(row.problem or row.workarounds for row in rows):
        print()
    return 0


def _table(rows: Sequence[Row]) -> list[str]:
    columns = (("engine", "engine"), *_INSTALLED, *ABILITIES)
    table = [[heading for heading, _ in columns]]
    table += [[cell(row, name) for _, name in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    padded = (
        (f"{text:<{width}}" for text, width in zip(line, widths, strict=True)) for line in table
    )
    return ["  ".join(line).rstrip() for line in padded]


def _blocks(rows: Sequence[Row], width: int) -> list[str]:
    """The content of the table for a narrow terminal: a few lines for each engine."""
    lines: list[str] = []
    for row in rows:
        # A line never breaks within a fact.
        facts = [f"{heading}: {cell(row, name)}" for heading, name in (*_INSTALLED, *ABILITIES)]
        text = "; ".join(fact.replace(" ", _TIED) for fact in facts)
        wrapped = textwrap.wrap(
            text, max(width, 40), initial_indent="  ", subsequent_indent="  ",
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
        lines += [row.engine, *(line.replace(_TIED, " ") for line in wrapped)]
    return lines


def describe(entry: EngineEntry) -> Row:
    """The state of one engine on this machine."""
    found, problem = None, ""
    try:
        found = locate(entry)
    except EngineNotInstalled:
        pass
    except UsageError as error:
        problem = str(error)
    number = _version(entry, found) if found else ""
    return Row(
        engine=entry.name,
        is_installed=found is not None,
        version=number,
        device=_device(entry, found, number) if found else "",
        python=found.python if found else "",
        origin=found.origin if found else "",
        problem=problem,
        workarounds=found.environment.workarounds if found and found.environment else [],
        models=sorted(entry.reads, reverse=True),
        takes=entry.takes,
        gives=entry.gives,
        guided=list(entry.guides),
        logprobs=entry.logprobs,
        embeddings="embed" in entry.tasks,
        prefix_cache=entry.prefix_cache,
        tensor_parallel=entry.has_tensor_parallel,
        multi_node=entry.has_nodes,
    )


def cell(row: Row, name: str) -> str:
    """A field in the form of the table."""
    value: Any = getattr(row, name)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_CELLS.get(kind, str(kind)) for kind in value) or "no"
    if name == "version":
        return value or ("yes" if row.is_installed else "no")
    return value or "-"


def _version(entry: EngineEntry, found: EnginePython) -> str:
    if found.environment is not None:
        return found.environment.version
    if found.site is not None:
        return version_in(found.site, entry) or ""
    for name in entry.distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""


def _device(entry: EngineEntry, found: EnginePython, number: str) -> str:
    """The device, as far as the names of the builds tell."""
    if found.environment is not None:
        return found.environment.device
    if not entry.package:
        return "cpu"
    if not entry.has_torch:
        if "+cuda" in number:
            return "cuda"
        is_metal = sys.platform == "darwin" and platform.machine() == "arm64"
        return "metal" if is_metal else "cpu"
    torch = distributions(found.site).get("torch", "") if found.site else ""
    for device in ("cpu", "rocm"):
        if f"+{device}" in torch:
            return device
    return "cuda" if torch else ""
