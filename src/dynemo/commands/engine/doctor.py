"""`dynemo-run engine doctor`: tries each installed engine, as a user would.

First it imports the engine in its own Python and looks at its devices. Then it runs the demo model,
which answers one prompt greedily.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from tempfile import NamedTemporaryFile, TemporaryFile
from time import monotonic, sleep

from msgspec import DecodeError, Struct

from dynemo.commands.engine.list import Row, describe
from dynemo.environments.entry import EngineEntry
from dynemo.environments.registry import ENGINES
from dynemo.errors import EngineNotInstalled, UsageError
from dynemo.folders import temporary_folder
from dynemo.foreign import decode_json
from dynemo.models.find import demo_checkout, demo_gguf
from dynemo.spelling import quoted, visible
from dynemo.terminal.status_line import StatusLine, gigabytes, status_line

_QUESTION = "What is the capital of South Africa?"
_ANSWER = "The capital of South Africa is Pretoria."
_GREEDY = b'{"temperature": 0, "max_tokens": 32}'
_SECONDS = 600
_GRACE = 10
_TICK = 0.1


class Report(Struct, frozen=True):
    """The output of `probe.py`, which runs in the engine's own Python."""

    error: str = ""
    devices: list[str] | None = None  #: None: this engine lists none before it loads a model
    free: int = 0  #: free bytes on the first device; without one, of the machine


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


def doctor(engine: str | None) -> int:
    """Prints a line or two for each engine; returns 1 if one is broken. Raises EngineNotInstalled
    if `engine` is not installed."""
    rows = [describe(entry) for entry in ENGINES.values() if entry.package]
    rows = [row for row in rows if engine in (row.engine, None)]
    if not rows:
        raise UsageError(
            f"{engine} is a part of dynemo-run, and there is nothing to check; choose one of "
            f"{', '.join(n for n, entry in ENGINES.items() if entry.package)}."
        )
    if engine is not None and not rows[0].is_installed and not rows[0].problem:
        raise EngineNotInstalled(f"{engine} is not installed; run `{ENGINES[engine].install}`.")
    broken = 0
    for row in rows:
        if not row.is_installed and not row.problem:
            print(visible(f"{row.engine:<11}not installed"), flush=True)
            continue
        problem, facts = _examine(ENGINES[row.engine], row)
        broken += bool(problem)
        shown = " · ".join(part for part in (row.version, row.device, *facts) if part)
        print(visible(f"{row.engine:<11}{'BROKEN' if problem else 'ok'} · {shown}"), flush=True)
        for text in [problem] * bool(problem) + row.workarounds:
            print(visible(f"{'':<11}{text}"), flush=True)
    return 1 if broken else 0


def _examine(entry: EngineEntry, row: Row) -> tuple[str, list[str]]:
    """The problem in a sentence, or an empty text; and the facts that were found."""
    if row.problem:
        return row.problem, []
    with status_line() as line:
        report = _probe(entry, row, line)
        facts = [*(report.devices or ()), f"{gigabytes(report.free)} free" if report.free else ""]
        if report.error:
            problem = f"Importing it fails with {report.error}."
            return f"{problem} Run `{entry.install}` to make its environment again.", facts
        if row.device in ("cuda", "rocm") and report.devices == []:
            return (
                f"This build is for {row.device} and finds no device; check the driver, "
                f"or run `{entry.install} --device cpu`.",
                facts,
            )
        started = monotonic()
        problem = _run_demo(entry, line)
        facts.append("" if problem else f"loads and answers in {monotonic() - started:.1f} s")
    return problem, facts


def _probe(entry: EngineEntry, row: Row, line: StatusLine) -> Report:
    code = files("dynemo.environments").joinpath("probe.py").read_text(encoding="utf-8")
    command = [row.python, "-P", "-W", "ignore", "-c", code, entry.package]
    done = _run(command, line, f"{entry.name} · importing")
    lines = done.out.splitlines() or [""]
    try:
        return decode_json(lines[-1], Report)
    except DecodeError:
        return Report(error=f"exit code {done.code}: {_last(done.err).rstrip('.')}")


def _run_demo(entry: EngineEntry, line: StatusLine) -> str:
    with NamedTemporaryFile(suffix=".json", dir=temporary_folder()) as template:
        template.write(_GREEDY)
        template.flush()
        model = demo_checkout() if "checkout" in entry.reads else demo_gguf()
        command = [sys.executable, "-m", "dynemo", "in=stdin", f"out={entry.name}", str(model)]
        command += ["--request-template", template.name, "--", *entry.exact_options]
        done = _run(command, line, f"{entry.name} · the demo model", _QUESTION)
    if done.code != 0:
        return _last(done.err).removeprefix("dynemo-run: ")
    if done.out.strip() != _ANSWER:
        return f"It answers {quoted(done.out.strip()[:200])}; correct is {quoted(_ANSWER)}."
    return ""


def _run(command: Sequence[str], line: StatusLine, label: str, text: str = "") -> Done:
    """Runs a program without the user's settings, which are for other runs."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DYNEMO_", "PYTHONPATH", "PYTHONHOME"))
    }
    place = temporary_folder()
    with (
        TemporaryFile(dir=place) as given,
        TemporaryFile(dir=place) as out,
        TemporaryFile(dir=place) as err,
    ):
        given.write(text.encode())
        given.seek(0)
        process = subprocess.Popen(command, stdin=given, stdout=out, stderr=err, env=environment)
        deadline = monotonic() + _SECONDS
        try:
            while process.poll() is None and monotonic() < deadline:
                if line.is_due():
                    line.show(f"{label} · {line.seconds} s")
                sleep(_TICK)
        finally:
            is_late = process.poll() is None
            _end(process)
        out.seek(0)
        err.seek(0)
        printed, errors = (each.read().decode(errors="replace") for each in (out, err))
        if is_late:
            errors += f"\nIt has not ended after {_SECONDS} s."
        return Done(process.returncode, printed, errors)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kills a process that ignores SIGTERM, as an engine that hangs does."""
    process.terminate()
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:500] if lines else "it printed nothing"
