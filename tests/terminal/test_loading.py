"""The progress line of a load."""

import asyncio
import itertools
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from dynemo.terminal import status_line as module
from dynemo.terminal.loading import loading_shown
from dynemo.terminal.status_line import amount, gigabytes
from support.command import COMMAND

_ENGINE = """
import os, time

def load(model):
    while not os.path.exists({go!r}):
        time.sleep(0.05)

async def generate(request):
    yield "said"
"""


def run_on_terminal(tmp_path: Path, until: str) -> str:
    """Returns what a run prints on a terminal's standard error.

    Its engine finishes loading once `until` appears there.
    """
    go = tmp_path / "go"
    (tmp_path / "slow.py").write_text(_ENGINE.format(go=str(go)))
    master, tty = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "in=stdin", f"out={tmp_path / 'slow.py'}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=tty,
    )
    os.close(tty)
    said = b""
    assert process.stdin is not None
    process.stdin.write(b"hello")
    process.stdin.close()
    with process:
        while True:
            if until.encode() in said:
                go.touch()
            try:
                part = os.read(master, 65536)
            except OSError:  # on Linux: the other end is closed
                break
            if not part:
                break
            said += part
        assert process.stdout is not None
        assert process.stdout.read() == b"said\n"
    os.close(master)
    return said.decode()


def test_a_slow_load_is_shown_and_its_line_goes(tmp_path: Path) -> None:
    said = run_on_terminal(tmp_path, until="loading slow")
    assert re.search(r"\r\x1b\[Kloading slow · \d+ s", said)
    assert said.rpartition("loading slow")[2].count("\r\x1b[K") == 1
    assert said.rpartition("\x1b[K")[2].startswith("model slow · ")


def test_without_a_terminal_a_line_at_times(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "LINE_SECONDS", 0.4)
    counts = itertools.chain([2_400_000_000], itertools.repeat(8_100_000_000))
    said: list[str] = []

    async def body() -> None:
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        async with loading_shown("m", ready, lambda: next(counts), 8_100_000_000):
            while len(said) < 2:
                await asyncio.sleep(0.05)
                said.extend(capsys.readouterr().err.splitlines())
            ready.set_result(None)
            await asyncio.sleep(1.2)

    asyncio.run(body())
    assert re.fullmatch(r"loading m · 2\.4 of 8\.1 GB · \d+ s", said[0])
    assert re.fullmatch(r"loading m · 8\.1 of 8\.1 GB · \d+ s", said[1])
    assert capsys.readouterr().err == ""


def test_the_body_may_end_before_the_load(capsys: pytest.CaptureFixture[str]) -> None:
    async def body() -> None:
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        async with loading_shown("m", ready, lambda: 0, 0):
            pass
        assert not ready.done()
        assert {task.get_name() for task in asyncio.all_tasks()}.isdisjoint({"loading"})

    asyncio.run(body())
    assert capsys.readouterr().err == ""


def test_amounts() -> None:
    assert amount(3_200_000_000, 8_100_000_000) == "3.2 of 8.1 GB"
    assert amount(1_000_000, 2_400_000) == "1 of 2 MB"
    assert amount(0, 8_100_000_000) == amount(5, 0) == ""
    assert gigabytes(123_000_000) == "123 MB"
