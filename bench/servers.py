"""The servers that are compared, each started as a user would start it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from msgspec import json

from bench.processes import children
from dynemo.messages import EngineSpec
from dynemo.models.find import find_model
from dynemo.models.load import read_model

URL = re.compile(rb"http://127\.0\.0\.1:(\d+)")


@dataclass(frozen=True)
class Served:
    port: int
    pid: int

    @property
    def host_pid(self) -> int:
        """Of a runner: its engine host."""
        (pid,) = children(self.pid)
        return pid


def command() -> list[str]:
    """`dynemo-run`, as installed beside this interpreter."""
    script = Path(sys.executable).parent / "dynemo-run"
    return [str(script)] if script.exists() else [sys.executable, "-m", "dynemo"]


@contextmanager
def ours(
    model: Path | None, *words: str, options: Sequence[str] = (), **environment: str
) -> Iterator[Served]:
    """`dynemo-run in=http`, ready to answer. No model: the demo model."""
    line = ["in=http", *words, "--http-port", "0", *named(model, options)]
    with runner(line, URL, environment) as (found, pid):
        yield Served(int(found[1]), pid)


def named(model: Path | None, options: Sequence[str] = ()) -> list[str]:
    """The end of a command: the model, and what the engine is told."""
    path = [] if model is None else [str(model)]
    return [*path, "--", *options] if options else path


@contextmanager
def runner(
    words: Sequence[str], greeting: re.Pattern[bytes], environment: Mapping[str, str]
) -> Iterator[tuple[re.Match[bytes], int]]:
    """`dynemo-run` with these words, once it has said its greeting: what was found, and the pid."""
    process = subprocess.Popen(
        [*command(), *words],
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
    said = []
    for line in process.stderr:
        said.append(line)
        if found := greeting.search(line):
            Thread(target=process.stderr.read, daemon=True).start()  # so that it never blocks
            return found
    raise RuntimeError(f"dynemo-run did not start: {b''.join(said).decode()}")


@contextmanager
def bare(model: Path | None, context_length: int, options: Sequence[str] = ()) -> Iterator[Served]:
    """The same engine, with the same parameters and nothing before it."""
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
    """What our adapter sets for the library, so that the peer has it too."""
    from dynemo.engines import llama_cpp

    return {**llama_cpp.ENVIRONMENT, **os.environ}


def spec_of(
    model: Path | None, context_length: int | None, options: Sequence[str] = ()
) -> EngineSpec:
    """What our engine host is told of this model, so that the peer gets the same."""
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
