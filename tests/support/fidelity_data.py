"""Reads the data in `tests/fidelity`, once."""

import gzip
import json
from collections import defaultdict
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from dynemo.prompt.template import ChatTemplate

FOLDER = Path(__file__).parent.parent / "fidelity"

#: The moment at which the goldens were rendered.
NOW = datetime(2026, 2, 3, 4, 5, 6)

Json = dict[str, Any]


@cache
def manifest() -> dict[str, Json]:
    entries = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))["templates"]
    return {entry["name"]: entry for entry in entries}


@cache
def conversations() -> dict[str, Json]:
    text = (FOLDER / "conversations.json").read_text(encoding="utf-8")
    return {entry["id"]: entry for entry in json.loads(text)["conversations"]}


@cache
def goldens() -> dict[str, list[Json]]:
    """Returns the goldens of each template."""
    by_template = defaultdict(list)
    with gzip.open(FOLDER / "goldens.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            golden = json.loads(line)
            by_template[golden["template"]].append(golden)
    return by_template


@cache
def template(name: str) -> ChatTemplate:
    entry = manifest()[name]
    source = (FOLDER / entry["file"]).read_bytes().decode()
    tokens = {key: entry[key] for key in ("bos_token", "eos_token") if entry[key] is not None}
    return ChatTemplate(source, special_tokens=tokens, now=lambda: NOW)
