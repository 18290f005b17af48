"""Measures how much of a model's files another process has read."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dynemo.serving.local.weights import WeightsProgress

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs /proc")
MIB = 1 << 20
_PROGRAM = """
import mmap, subprocess, sys
first, second = (open(path, "rb", buffering=0) for path in sys.argv[1:3])
touched = mmap.mmap(first.fileno(), 0, prot=mmap.PROT_READ)
touched.madvise(mmap.MADV_RANDOM)
first.close()
for at in range(0, 3 << 20, mmap.PAGESIZE):
    touched[at]
second.read(2 << 20)
print("read", flush=True)
sys.stdin.read(1)
touched.close()
second.close()
print("done", flush=True)
sys.stdin.read(1)
"""


@contextmanager
def reader(*paths: Path, wrap: bool = False) -> Iterator["subprocess.Popen[bytes]"]:
    """Starts a process that maps 3 MiB of the first file and reads 2 MiB of the second.

    It leads its own session.
    """
    command = [sys.executable, "-c", _PROGRAM, *map(str, paths)]
    if wrap:  # like an engine whose core is a separate process
        code = "import subprocess, sys; subprocess.run(sys.argv[1:])"
        command = [sys.executable, "-c", code, *command]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"read\n"
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.stdin.close()
        process.stdout.read()
        process.stdout.close()
        process.wait()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Returns a checkout of symbolic links, as in a cache of the Hub."""
    blobs, checkout = tmp_path / "blobs", tmp_path / "checkout"
    blobs.mkdir()
    checkout.mkdir()
    for name in ("one", "two"):
        (blobs / name).write_bytes(bytes(4 * MIB))
        (checkout / f"{name}.safetensors").symlink_to(blobs / name)
    (checkout / "tokenizer.json").write_bytes(bytes(4 * MIB))
    return checkout


@pytest.mark.parametrize("wrap", [False, True])
def test_mapped_and_read(model: Path, wrap: bool) -> None:
    paths = [model / "one.safetensors", model / "two.safetensors"]
    with reader(*paths, wrap=wrap) as process:
        weights = WeightsProgress(process.pid, model)
        # The system may also map some pages around each page that is used.
        assert 5 * MIB <= weights.read() <= 6 * MIB
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"done\n"
        assert 5 * MIB <= weights.read() <= 6 * MIB  # closed files still count


def test_other_files_do_not_count(model: Path, tmp_path: Path) -> None:
    with reader(model / "tokenizer.json", model / "tokenizer.json") as process:
        assert WeightsProgress(process.pid, model).read() == 0


def test_a_process_that_has_ended(model: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    process.wait()
    assert WeightsProgress(process.pid, model).read() == 0


def test_a_folder_that_cannot_be_listed(tmp_path: Path) -> None:
    assert WeightsProgress(os.getpid(), tmp_path / "gone" / "model.gguf").read() == 0
