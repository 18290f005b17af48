"""The bench runs and prints its table. No test checks a speed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.command import children, is_alive
from support.waiting import wait_until

_ROOT = Path(__file__).parent.parent.parent


def _python(*words: str | Path, stdin: str = "", seconds: float = 18) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=seconds,
        cwd=_ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_random_model_answers(tmp_path: Path) -> None:
    path = tmp_path / "random.gguf"
    assert "M parameters" in _python("-m", "bench.random_model", "--tiny", path)
    assert _python("bench/bare_script.py", path, "256", "1", "1", stdin="Hello")


def test_the_same_seed_makes_the_same_model(tmp_path: Path) -> None:
    files = [tmp_path / "one.gguf", tmp_path / "two.gguf"]
    for path in files:
        _python("-m", "bench.random_model", "--tiny", path)
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.timeout(100)
@pytest.mark.parametrize("family", ["cpu", "saturation", "overload", "registry"])
def test_the_table_and_its_json(family: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    words = ("-m", "bench", "--quick", "--only", family, "--json", path)
    table = _python(*words, seconds=90)
    assert "ratio or difference" in table
    rows = json.loads(path.read_text())["rows"]
    assert rows
    for row in rows:
        assert row["what"] in table
        assert row["ours"] >= 0  # in a quick run a process may use less than one clock tick
    assert any(row["ours"] for row in rows)


def _servers(pid: int) -> list[int]:
    words = [(child, Path(f"/proc/{child}/cmdline").read_bytes()) for child in children(pid)]
    return [child for child, said in words if b"in=http" in said]


@pytest.mark.timeout(60)
def test_asked_to_end_it_leaves_no_server() -> None:
    started: list[int] = []
    words = [sys.executable, "-m", "bench", "--quick", "--only", "cpu"]
    with subprocess.Popen(
        words, cwd=_ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as bench:
        try:
            wait_until(lambda: any(map(children, _servers(bench.pid))), 30)
            started = _servers(bench.pid)
            # It must print its greeting first: without a reader it would end by itself.
            time.sleep(1)
            bench.terminate()
            assert bench.wait(30) != 0
            wait_until(lambda: not any(map(is_alive, started)), 10)
        finally:
            bench.kill()
            for pid in filter(is_alive, started):
                os.kill(pid, signal.SIGKILL)
