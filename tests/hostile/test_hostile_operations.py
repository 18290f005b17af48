"""The loss of a terminal, and folders that cannot be written."""

import json
import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path
from threading import Thread

import pytest

from dynemo.folders import cache_folder, data_folder
from support.command import COMMAND, serving

ECHO = ("out=echo", "--model-name", "m")
PROMPT = "one two three four five six seven eight nine ten"


def _stream(url: str, seen: list[str]) -> None:
    body = {"messages": [{"role": "user", "content": PROMPT * 3}], "stream": True}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        seen.extend(line.decode().strip() for line in answer if line.strip())


def test_a_server_drains_after_sighup() -> None:
    """A second SIGHUP changes nothing: a shell and the system each send one."""
    with serving(*ECHO, DYNEMO_TOKEN_ECHO_DELAY_MS="20") as server:
        seen: list[str] = []
        reader = Thread(target=_stream, args=(server.url, seen))
        reader.start()
        deadline = time.monotonic() + 10
        while not seen and time.monotonic() < deadline:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGHUP)
        time.sleep(0.1)
        server.process.send_signal(signal.SIGHUP)
        assert server.process.wait(20) == 0
        reader.join(10)
        assert seen[-1] == "data: [DONE]"
        assert any('"finish_reason":"stop"' in line.replace(" ", "") for line in seen)


def test_a_server_under_nohup_outlives_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    ignoring = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh", *COMMAND]
    monkeypatch.setattr("support.command.COMMAND", ignoring)
    with serving(*ECHO) as server:
        server.process.send_signal(signal.SIGHUP)
        time.sleep(1)
        seen: list[str] = []
        _stream(server.url, seen)
        assert seen[-1] == "data: [DONE]"
        assert server.end(signal.SIGTERM) == 0


def test_a_batch_ends_after_sighup_and_can_be_resumed(tmp_path: Path) -> None:
    batch = tmp_path / "batch.jsonl"
    batch.write_text("".join(json.dumps({"text": PROMPT}) + "\n" for _ in range(40)))
    output = tmp_path / "batch.output.jsonl"
    words = [*COMMAND, f"in=batch:{batch}", *ECHO, "--output", str(output), "--concurrency", "2"]
    slow = os.environ | {"DYNEMO_TOKEN_ECHO_DELAY_MS": "20"}
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, env=slow)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not (output.exists() and output.stat().st_size):
        time.sleep(0.02)
    process.send_signal(signal.SIGHUP)
    assert process.wait(20) == 128 + signal.SIGHUP
    done = subprocess.run(words, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0
    assert len(output.read_text().splitlines()) == 40


def _run(*words: str, limit: str = "", **variables: str) -> "subprocess.CompletedProcess[str]":
    """`limit`: flags of `ulimit`. With `-f 0` every write to a file fails, as on a full disk."""
    command = ["sh", "-c", f'ulimit {limit}; exec "$@"', "sh"] if limit else []
    return subprocess.run(
        [*command, *COMMAND, *words],
        input="hello",
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | variables,
        check=False,
    )


def _check(done: "subprocess.CompletedProcess[str]", code: int, words: str) -> None:
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "A bug in dynemo-run" not in done.stderr
    assert done.stderr.rstrip().endswith(".")


def test_a_full_temporary_folder_is_a_sentence(tmp_path: Path) -> None:
    done = _run("in=stdin", *ECHO, limit="-f 0")
    _check(done, 2, "The engine's temporary files cannot be written")
    done = _run("ps", "--discovery", f"file:{tmp_path}", limit="-f 0")
    _check(done, 2, "for discovery: File too large")
    done = _run("ps", "--discovery", "file", limit="-f 0", XDG_RUNTIME_DIR="")
    _check(done, 2, "Cannot find a folder for discovery")
    done = _run("engine", "doctor", limit="-f 0")
    _check(done, 1, "cannot be read or written")


def test_a_home_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    """A file in its place stops root, too."""
    home = tmp_path / "home"
    home.write_text("")
    places = {"HOME": str(home)} | {
        f"XDG_{name}": "" for name in ("DATA_HOME", "CACHE_HOME", "STATE_HOME", "RUNTIME_DIR")
    }
    done = _run("in=stdin", *ECHO, **places)
    assert (done.returncode, "hello" in done.stdout) == (0, True)
    assert _run("engine", "list", **places).returncode == 0
    _check(_run("engine", "install", "vllm", **places), 2, "XDG_DATA_HOME")
    _check(_run("services", "up", **places), 2, "XDG_DATA_HOME")
    _check(_run("services", "down", **places), 2, "XDG_DATA_HOME")
    done = _run("services", "status", "--etcd-port", "1", "--nats-port", "1", **places)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_user_without_a_home_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr("os.getuid", lambda: 4_000_000)  # no such user
    assert not data_folder().exists()
    assert not cache_folder().exists()
