"""`engine list`, whose table is in the README, and `engine doctor`, which finds faults."""

import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import json

from dynemo.commands.engine import doctor as engine_doctor
from dynemo.commands.engine.list import ABILITIES, Row, cell, describe
from dynemo.environments.registry import ENGINES
from dynemo.terminal.status_line import StatusLine
from support.command import COMMAND, run
from support.pseudo_terminal import Terminal

#: Without engine environments there are no lines about them below the table.
NOTHING = {"XDG_DATA_HOME": "/nowhere", "VIRTUAL_ENV": ""}
ROOT = Path(__file__).parent.parent.parent
#: A module that lists its devices as llama.cpp's does, and has none.
_NO_DEVICES = """
class ggml_backend_dev_type:
    GGML_BACKEND_DEVICE_TYPE_CPU = 0

def get_device_info():
    return []
"""


def test_the_readme_has_the_table() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    heading = ["engine", *(name for name, _ in ABILITIES)]
    start = lines.index(f"| {' | '.join(heading)} |")
    rows = [describe(entry) for entry in ENGINES.values()]
    for line, row in zip(lines[start + 2 :], rows, strict=False):
        cells = [row.engine, *(cell(row, field) for _, field in ABILITIES)]
        assert line == f"| {' | '.join(cells)} |"
    assert not lines[start + 2 + len(rows)].startswith("|")


def test_list_shows_every_engine() -> None:
    done = run("engine", "list")
    assert done.returncode == 0, done.stderr
    heading, *lines = done.stdout.splitlines()
    assert heading.split()[:2] == ["engine", "installed"]
    assert [line.split()[0] for line in lines[: len(ENGINES)]] == list(ENGINES)


def test_list_fits_a_narrow_terminal(tmp_path: Path) -> None:
    terminal = Terminal([*COMMAND, "engine", "list"], tmp_path, {"COLUMNS": "80", **NOTHING})
    try:
        shown = terminal.wait("echo\n") + terminal.wait("multi-node: no\n")
    finally:
        terminal.close()
    lines = shown.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == list(ENGINES)
    assert max(map(len, lines)) <= 80
    for heading, _ in ABILITIES:
        assert shown.count(f" {heading}: ") == len(ENGINES)
    assert "; models: engine folder, checkout;" in shown


def test_list_is_a_table_on_a_wide_terminal_and_in_a_pipe(tmp_path: Path) -> None:
    piped = run("engine", "list", COLUMNS="40", XDG_DATA_HOME="/nowhere", VIRTUAL_ENV="").stdout
    terminal = Terminal([*COMMAND, "engine", "list"], tmp_path, {"COLUMNS": "200", **NOTHING})
    try:
        assert terminal.wait(piped) == piped
    finally:
        terminal.close()


def test_list_as_json() -> None:
    rows = json.decode(run("engine", "list", "--json", VIRTUAL_ENV="").stdout, type=list[Row])
    found = {row.engine: row for row in rows}
    llama_cpp, trtllm = found["llama_cpp"], found["trtllm"]
    assert (llama_cpp.is_installed, llama_cpp.python) == (True, sys.executable)
    assert llama_cpp.version.count(".") == 2
    assert (trtllm.is_installed, trtllm.version, trtllm.models) == (
        False,
        "",
        ["engine", "checkout"],
    )


@pytest.mark.timeout(60)
def test_doctor_finds_a_healthy_engine(tmp_path: Path) -> None:
    done = run(
        "engine", "doctor", "llama_cpp", timeout=50, XDG_DATA_HOME=str(tmp_path), DYNEMO_OUT="echo"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("llama_cpp  ok · ")
    assert "loads and answers in" in done.stdout


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise OSError('libcuda.so.1: no such file')", "OSError: libcuda.so.1: no such file"),
        ("import os; os._exit(9)", "Importing it fails with exit code 9"),
    ],
)
def test_doctor_reports_faults(tmp_path: Path, text: str, said: str) -> None:
    done = _examine(tmp_path, "vllm", text, "vllm-1.0")
    assert done.returncode == 1
    assert "vllm       BROKEN" in done.stdout
    assert said in done.stdout
    assert "dynemo-run engine install vllm" in done.stdout


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("text", "is_missed"),
    [
        ("", False),
        (_NO_DEVICES, True),
    ],
    ids=["no list", "an empty list"],
)
def test_doctor_misses_a_device_if_the_engine_lists_them(
    tmp_path: Path, text: str, is_missed: bool
) -> None:
    done = _examine(tmp_path, "mistralrs", text, "mistralrs-1.0+cuda130")
    assert "mistralrs  BROKEN · 1.0+cuda130 · cuda" in done.stdout  # it is not an engine
    assert ("finds no device" in done.stdout) == is_missed


def _examine(
    folder: Path, engine: str, text: str, distribution: str
) -> "subprocess.CompletedProcess[str]":
    """Runs the doctor on an engine whose module has this text."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    (site,) = (folder / "venv").glob("lib/python3.*/site-packages")
    (site / f"{engine}.py").write_text(text)
    for name in (distribution, "msgspec-0.22.0"):
        (site / f"{name}.dist-info").mkdir()
    own = {"XDG_DATA_HOME": str(folder), "VIRTUAL_ENV": str(folder / "venv")}
    return run("engine", "doctor", engine, timeout=50, **own)


def test_doctor_without_an_environment(tmp_path: Path) -> None:
    done = run("engine", "doctor", "trtllm", XDG_DATA_HOME=str(tmp_path), VIRTUAL_ENV="")
    assert done.returncode == 2
    assert "dynemo-run engine install trtllm" in done.stderr
    assert run("engine", "doctor", "echo").returncode == 2


@pytest.mark.parametrize("words", [["install"], ["install", "vlm"], ["remove"], ["start"], []])
def test_missing_or_unknown_words(words: list[str]) -> None:
    done = run("engine", *words)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert any(word in done.stderr for word in ("dynemo-run engine", "doctor", "vllm"))


@pytest.mark.processes
def test_doctor_stops_a_program_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_doctor, "_SECONDS", 1)
    monkeypatch.setattr(engine_doctor, "_GRACE", 0.2)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    done = engine_doctor._run([sys.executable, "-c", code], StatusLine(), "a hanging one")
    assert done.code < 0
    assert done.err.endswith("It has not ended after 1 s.")
