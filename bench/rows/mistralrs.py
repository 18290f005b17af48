"""`in=http out=mistralrs` against mistral.rs's own Python runner without HTTP."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from bench.client import Client, Outcome
from bench.plan import CONTEXT, Plan, Subject
from bench.random_checkout import cached_checkout
from bench.random_model import cached_model
from bench.rows.own_servers import engine_rows
from bench.rows.turns import Pair
from bench.servers import Served, ours
from bench.table import Row
from dynemo.messages.spec import EngineSpec
from dynemo.models.find import demo_checkout, find_model
from dynemo.models.load import read_model


@dataclass(frozen=True)
class _Direct(Pair):
    """A pair whose peer is a process with requests on its standard input."""

    process: "subprocess.Popen[str]"

    def ask(self, whom: Served, body: dict[str, Any], streams: int = 1) -> Outcome:
        if whom is self.ours:
            return super().ask(whom, body, streams)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"body": body, "streams": streams}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the runner has ended")
        return Outcome(**json.loads(line))


def mistralrs_rows(plan: Plan) -> list[Row]:
    rows = []
    for subject in (
        Subject("random weights, mistralrs", cached_checkout(plan.random_sizes)),
        Subject("random weights, mistralrs (GGUF)", cached_model(plan.random_sizes)),
        Subject("demo model, mistralrs", demo_checkout(), has_goal=False),
    ):
        one = partial(ours, subject.path, "out=mistralrs", "--context-length", str(CONTEXT))
        rows += engine_rows(plan, subject, one, partial(_runner, subject), _direct)
    return rows


def _direct(one: Served, process: "subprocess.Popen[str]", load: Client) -> Pair:
    return _Direct(one, Served(0, process.pid), load, process)


@contextmanager
def _runner(subject: Subject) -> "Iterator[subprocess.Popen[str]]":
    found = find_model(str(subject.path), engine="mistralrs")
    spec = EngineSpec(
        engine="mistralrs",
        model=str(found.path),
        workdir="",
        model_bytes=read_model(found, None, None).size,
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.bare_runner", msgspec.json.encode(spec).decode()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()  # it has loaded
        yield process
        process.stdin.close()
