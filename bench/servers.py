"""Starts the compared servers like a user would."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread

from msgspec import json

from bench.processes import children
from dynemo.messages.spec import EngineSpec
from dynemo.models.find import find_model
from dynemo.models.load import read_model

_READY_SECONDS = 400.0
URL = re.compile(rb"http://127\.0\.0\.1:(\d+)")


@dataclass(frozen=True)
class Served:
    port: int
    pid: int

    @property
    def host_pid(self) -> int:
        """The pid of a runner's engine host."""
        (pid,) = children(self.pid)
        return pid


def command() -> list[str]:
    """Returns the `dynemo-run` command beside this interpreter."""
    script = Path(sys.executable).parent / "dynemo-run"
    return [str(script)] if script.exists() else [sys.executable, "-m", "dynemo"]


@contextmanager
def ours(
    model: Path | None, *arguments: str, options: Sequence[str] = (), **environment: str
) -> Iterator[Served]:
    """Starts `dynemo-run in=http` and waits until it can answer.

    Without a model it uses the demo model.
    """
    line = ["in=http", *arguments, "--http-port", "0", *named(model, options)]
    with runner(line, URL, environment) as (found, pid):
        yield Served(int(found[1]), pid)


def named(model: Path | None, options: Sequence[str] = ()) -> list[str]:
    """Returns the end of a command: the model, and the engine's options."""
    path = [] if model is None else [str(model)]
    return [*path, "--", *options] if options else path


@contextmanager
def runner(
    arguments: Sequence[str], greeting: re.Pattern[bytes], environment: Mapping[str, str]
) -> Iterator[tuple[re.Match[bytes], int]]:
    """Starts `dynemo-run` with these arguments. Yields the match of its greeting, and its pid."""
    process = subprocess.Popen(
        [*command(), *arguments],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    try:
        yield _greeting(process, greeting), process.pid
    finally:
        process.terminate()
        process.wait()


def _greeting(process: "subprocess.Popen[bytes]", greeting: re.Pattern[bytes]) -> re.Match[bytes]:
    assert process.stderr is not None
    output = []
    for line in process.stderr:
        output.append(line)
        if found := greeting.search(line):
            Thread(target=process.stderr.read, daemon=True).start()  # so that it never blocks
            return found
    raise RuntimeError(f"dynemo-run did not start: {b''.join(output).decode()}")


@contextmanager
def bare(model: Path | None, context_length: int, options: Sequence[str] = ()) -> Iterator[Served]:
    """Starts the same engine with the same parameters, without dynemo-run."""
    spec = spec_of(model, context_length, options)
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.bare_server", json.encode(spec).decode()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=engine_environment(),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Served(int(process.stdout.readline()), process.pid)
    finally:
        process.stdin.close()
        process.wait()


def engine_environment() -> dict[str, str]:
    """Returns our adapter's environment for the library, so that the peer has it, too."""
    from dynemo.engines import llama_cpp

    return {**llama_cpp.ENVIRONMENT, **os.environ}


def spec_of(
    model: Path | None, context_length: int | None, options: Sequence[str] = ()
) -> EngineSpec:
    """Returns our engine host's spec for this model, so that the peer gets the same."""
    found = find_model(None if model is None else str(model), needs="gguf", engine="llama_cpp")
    files = read_model(found, None, None)
    return EngineSpec(
        engine="llama_cpp",
        model=str(found.path),
        workdir="",
        context_length=context_length,
        model_bytes=files.size,
        model_context=files.context_length,
        kv_bytes_per_token=files.kv_bytes_per_token,
        options=list(options),
    )


@contextmanager
def own_server(command: Sequence[str], **environment: str) -> Iterator[Served]:
    """Starts an engine's own server on a free port, and waits until its /health is 200.

    All its processes end with the context. `command` gets --host and --port added.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, **environment},
    )
    try:
        _await_health(process, port)
        yield Served(port, process.pid)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _await_health(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.5)
    raise RuntimeError("the engine's own server did not start")
