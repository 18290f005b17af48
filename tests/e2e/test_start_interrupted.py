"""Ctrl-C at any moment of a start gives an exit code, without a traceback or a warning."""

import asyncio
import inspect
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dynemo.app.run import _in_loop
from dynemo.app.settings.modes import RunInput
from support.command import COMMAND
from support.free_ports import free_port
from support.waiting import wait_until

#: A library that treats Ctrl-C as its own error and continues.
SWALLOWING_IMPORT = """
import signal
import sys
import time

class Library:
    def find_spec(self, name, path, target=None):
        if name == module:
            try:
                signal.raise_signal(signal.SIGINT)
                time.sleep(0)
            except KeyboardInterrupt:
                pass

module = sys.argv.pop(1)
sys.meta_path.insert(0, Library())
from dynemo.__main__ import main
main()
"""
SLOW = """
import os
import time


def load(model):
    open({started!r}, "x").close()
    while not os.path.exists({go!r}):
        time.sleep(0.001)


async def generate(request):
    yield "never"
"""


@pytest.mark.parametrize(
    ("words", "module"),
    [
        ("in=stdin out=echo", "dynemo.app.cli"),
        ("in=stdin out=echo", "dynemo.models.load"),
        ("in=stdin out=echo", "dynemo.app.run"),
        ("in=stdin out=dyn://nobody", "dynemo.app.run"),
        ("in=http out=echo --http-port 0", "uvicorn"),
        ("in=http out=echo --http-port 0", "uvloop"),
    ],
)
def test_a_ctrl_c_that_a_library_would_lose(words: str, module: str, temporary: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SWALLOWING_IMPORT, module, *words.split()],
        input=b"hi",
        capture_output=True,
        timeout=15,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGINT, b"", b"")
    wait_until(lambda: not list(temporary.iterdir()))  # the engine host has ended


@pytest.mark.parametrize(
    ("number", "said"), [(signal.SIGINT, ()), (signal.SIGTERM, (signal.SIGTERM,))]
)
def test_the_exit_code_is_that_of_the_signal(number: int, said: tuple[int, ...]) -> None:
    async def work() -> int:
        task = asyncio.current_task()
        assert task is not None
        task.cancel(*said)
        return await asyncio.sleep(0, 0)

    assert _in_loop(RunInput("none"), work()) == 128 + number


def test_work_that_an_interrupt_keeps_from_starting_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def work() -> int:
        return await asyncio.sleep(0, 0)

    started = work()
    monkeypatch.setitem(sys.modules, "uvloop", None)
    with pytest.raises(ImportError):
        _in_loop(RunInput("http"), started)
    assert inspect.getcoroutinestate(started) == inspect.CORO_CLOSED


def test_an_engine_that_becomes_ready_during_the_shutdown_is_no_error(tmp_path: Path) -> None:
    started, go = tmp_path / "started", tmp_path / "go"
    engine = tmp_path / "slow.py"
    engine.write_text(SLOW.format(started=str(started), go=str(go)))
    port = free_port()
    process = subprocess.Popen(
        [*COMMAND, "in=http", "--http-port", str(port), f"out={engine}"],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        wait_until(started.exists)
        wait_until(lambda: _answers(port))
        os.kill(process.pid, signal.SIGINT)
        go.touch()
        _, said = process.communicate(timeout=15)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, said
    assert b"dynemo-run:" not in said


def _answers(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(5)
        try:
            client.connect(("127.0.0.1", port))
            client.sendall(b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return client.recv(100).startswith(b"HTTP/1.1 200")
        except OSError:
            return False
