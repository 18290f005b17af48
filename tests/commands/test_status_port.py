"""The status port of a worker (`--status-port`)."""

import json
import os
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.command import COMMAND, run


@contextmanager
def worker(folder: Path, *words: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Starts a worker with a status port. Returns the process and the port's URL."""
    process = subprocess.Popen(
        [*COMMAND, "in=dyn://pool", "out=echo", "--status-port", "0", *words],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "DYNEMO_DISCOVERY": f"file:{folder}"},
    )
    assert process.stderr is not None
    with process, process.stderr as stderr:
        try:
            found = re.search(r"status (http://\S+)", stderr.readline())
            assert found is not None
            yield process, found[1]
        finally:
            process.terminate()


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_its_pages(tmp_path: Path) -> None:
    with worker(tmp_path) as (process, url):
        status, body = get(f"{url}/health")
        report = json.loads(body)
        assert (status, report["status"]) == (200, "ok")
        (instance,) = report["models"][0]["instances"]
        assert instance["engine"] == "echo"
        assert get(f"{url}/live")[0] == 200
        assert b'dynemo_engine_running{instance_id="' in get(f"{url}/metrics")[1]
        # The port takes no requests.
        assert get(f"{url}/v1/models")[0] == 404
        assert get(f"{url}/v1/models/demo")[0] == 404
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["in=dyn://pool", "out=echo", "--status-port", ":1"],
            '--status-port takes PORT or HOST:PORT, not ":1".',
        ),
        (
            ["in=http", "out=dyn://pool", "--status-port", "1"],
            "--status-port needs a worker (in=dyn://NAME)",
        ),
        (
            ["in=http", "out=echo", "--status-port", "1"],
            "--status-port needs a worker (in=dyn://NAME)",
        ),
    ],
)
def test_invalid_uses_are_refused(words: list[str], said: str) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_port_in_use(tmp_path: Path) -> None:
    with worker(tmp_path) as (_, url):
        port = url.rpartition(":")[2]
        done = run("in=dyn://p", "out=echo", "--status-port", port)
    assert done.returncode == 2
    assert f"Port {port} on 127.0.0.1 is in use; choose another with --status-port" in done.stderr


def drain(url: str, key: str = "") -> int:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(f"{url}/drain", b"", headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_client_with_the_key_may_drain_it(tmp_path: Path) -> None:
    with worker(tmp_path, "--api-key", "sk-1") as (process, url):
        assert drain(url) == drain(url, "sk-2") == 401
        assert get(f"{url}/metrics")[0] == 200  # the key is for /drain alone
        assert get(f"{url}/drain")[0] == 405
        assert drain(url, "sk-1") == 202
        assert process.wait(10) == 0


def test_nobody_may_drain_it_without_a_key_of_its_own(tmp_path: Path) -> None:
    with worker(tmp_path) as (process, url):
        assert drain(url) == drain(url, "sk-1") == 403
        assert process.poll() is None
