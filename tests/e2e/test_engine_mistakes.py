"""Each fault of an engine is one sentence with the engine's own error, and no process stays.

Other files have more faults:
- `test_ranks.py`: ranks that do not fit;
- `test_e2e_vllm.py`: vLLM with an unknown architecture, with too little memory, with a killed core;
- `test_trtllm.py`: TensorRT-LLM;
- `test_sglang_nodes.py`: a killed node of SGLang.
"""

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec import json

from support.command import COMMAND, children, run
from support.waiting import wait_until

#: SGLang loads in a minute on two idle cores.
SGLANG_SECONDS = 600


@pytest.fixture(autouse=True)
def nothing_left(temporary: Path) -> Iterator[None]:
    """Checks that the test leaves no temporary file, and no process with its folder."""
    yield
    wait_until(lambda: not _processes_with(temporary), 10)
    assert list(temporary.glob("dynemo-*")) == []


def _processes_with(folder: Path) -> list[str]:
    """Returns the command lines of the processes with this folder in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # another user's process, or an ended one
    return found


def _mistake(*words: str | Path, stdin: str = "hi", timeout: float = 60) -> str:
    """Runs the command. Returns its error message, which is the only output."""
    return _sentence(run(*words, stdin=stdin, timeout=timeout))


def _sentence(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    *lines, last = done.stderr.splitlines()
    assert all(line.startswith("loading ") for line in lines), done.stderr
    assert last.startswith("dynemo-run: ")
    return last


def _changed(folder: Path, to: Path, **config: object) -> Path:
    """Copies a checkout and changes its `config.json`."""
    shutil.copytree(folder, to)
    file = to / "config.json"
    file.write_bytes(json.encode({**json.decode(file.read_bytes()), **config}))
    return to


@pytest.fixture
def unknown_gguf(demo: Path, tmp_path: Path) -> Path:
    """Returns a GGUF with an unknown architecture."""
    path = tmp_path / "unknown.gguf"
    name = struct.pack("<Q", 5)
    path.write_bytes(demo.read_bytes().replace(name + b"llama", name + b"llamx", 1))
    return path


@pytest.fixture
def unknown_checkout(demo_folder: Path, tmp_path: Path) -> Path:
    return _changed(demo_folder, tmp_path / "unknown", architectures=["NoSuchForCausalLM"])


@pytest.mark.parametrize("engine", ["sglang", "trtllm"])
def test_a_gguf_for_an_engine_that_reads_checkouts(engine: str, demo: Path) -> None:
    line = _mistake(f"out={engine}", demo)  # also without the engine
    assert f"is a GGUF file, but {engine} needs a checkout" in line


def test_a_checkout_for_llama_cpp(demo_folder: Path) -> None:
    line = _mistake("out=llama_cpp", demo_folder)
    assert "is a checkout, but llama_cpp needs a GGUF file" in line


@pytest.mark.parametrize("engine", ["llama_cpp", "mistralrs"])
def test_a_gguf_of_an_architecture_that_it_does_not_know(engine: str, unknown_gguf: Path) -> None:
    line = _mistake(f"out={engine}", unknown_gguf)
    assert "could not load" in line
    assert "llamx" in line


def test_a_checkout_of_an_architecture_that_mistralrs_does_not_know(unknown_checkout: Path) -> None:
    line = _mistake("out=mistralrs", unknown_checkout)
    assert f'mistral.rs could not load "{unknown_checkout}": ' in line
    assert "NoSuchForCausalLM" in line


@pytest.mark.timeout(SGLANG_SECONDS + 60)
def test_a_checkout_of_an_architecture_that_sglang_does_not_know(
    unknown_checkout: Path, engine_python: Callable[[str], str]
) -> None:
    words = ["out=sglang", str(unknown_checkout), "--engine-python", engine_python("sglang")]
    line = _mistake(*words, timeout=SGLANG_SECONDS)
    assert "SGLang could not load" in line
    assert "'NoSuchForCausalLM' is not a registered model" in line


def _with_memory(megabytes: int, *words: str | Path) -> str:
    """Does the same as `_mistake`, with a limit on the memory of a process."""
    if sys.platform != "linux":
        pytest.skip("only Linux limits the memory of a process")
    limited = ["sh", "-c", f'ulimit -v {megabytes * 1024}; exec "$@"', "sh", *COMMAND]
    done = subprocess.run(
        [*limited, *map(str, words)], input="hi", capture_output=True, text=True, timeout=60
    )
    return _sentence(done)


def test_not_enough_memory_for_llama_cpp(demo: Path) -> None:
    cache = ["--parallel", "256", "--cache-type-k", "f32", "--cache-type-v", "f32"]  # 4 GB
    line = _with_memory(2500, demo, "--", *cache)
    assert "llama.cpp could not load" in line
    assert "insufficient memory (attempted to allocate 4096.00 MB)" in line


@pytest.mark.timeout(120)
def test_not_enough_memory_for_mistralrs(demo: Path, tmp_path: Path) -> None:
    """The context is so long that it needs a table of some GB."""
    key = b"llama.context_length" + struct.pack("<I", 4)
    whole = demo.read_bytes()
    at = whole.index(key) + len(key)
    model = tmp_path / "long.gguf"
    model.write_bytes(whole[:at] + struct.pack("<I", 100_000_000) + whole[at + 4 :])
    line = _with_memory(2500, "out=mistralrs", model)
    assert "The engine ended with signal SIGABRT: memory allocation of" in line
    assert line.endswith("bytes failed.")


@pytest.mark.timeout(SGLANG_SECONDS + 60)
def test_not_enough_memory_for_sglang(
    demo_folder: Path, engine_python: Callable[[str], str]
) -> None:
    words = ["out=sglang", str(demo_folder), "--engine-python", engine_python("sglang")]
    # A negative share fails even if other processes free memory meanwhile.
    words += ["--", "--mem-fraction-static=-1"]
    line = _mistake(*words, timeout=SGLANG_SECONDS)
    assert "SGLang could not load" in line
    assert "--mem-fraction-static" in line


@pytest.mark.timeout(200)
@pytest.mark.parametrize("engine", ["sglang", "vllm"])
def test_more_devices_than_there_are(
    engine: str, demo_folder: Path, engine_python: Callable[[str], str]
) -> None:
    words = [f"out={engine}", str(demo_folder), "--engine-python", engine_python(engine)]
    line = _mistake(*words, "--tensor-parallel-size", "4096", timeout=180)
    assert "--tensor-parallel-size 4096 needs 4096 " in line
    assert "on this machine, but it has " in line


@pytest.mark.timeout(120)
@pytest.mark.parametrize("engine", ["sglang", "vllm"])
def test_a_port_where_the_nodes_cannot_meet(
    engine: str, demo_folder: Path, engine_python: Callable[[str], str]
) -> None:
    words = ["in=http", "--http-port", "0", f"out={engine}", str(demo_folder)]
    words += ["--engine-python", engine_python(engine), "--num-nodes", "2"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        line = _mistake(*words, "--dist-init-addr", where, timeout=100)
    assert f"The port of --dist-init-addr {where} is in use by another program" in line
    line = _mistake(*words, "--dist-init-addr", "192.0.2.1:1", timeout=100)
    assert "Use an address of rank 0's own machine." in line


@pytest.fixture
def engine(tmp_path: Path) -> Callable[[str], Path]:
    """Returns a function that writes an engine file with the given code in `load`."""

    def write(load: str) -> Path:
        path = tmp_path / "mine.py"
        path.write_text(
            "import asyncio, os, time\n"
            f"def load(model):\n    print('reading', flush=True)\n    {load}\n"
            "async def generate(request):\n    yield 'one '\n    await asyncio.sleep(0.1)\n"
            "    print('kernel.cu:31: bad address', flush=True)\n"
            # Its files close before it ends, as may happen on a busy machine.
            "    os.closerange(3, 256)\n    time.sleep(0.3)\n    os._exit(7)\n"
        )
        return path

    return write


INPUTS = {
    "stdin": ["in=stdin"],
    "http": ["in=http", "--http-port", "0"],
    "worker": ["in=dyn://pool", "--discovery"],
}


@pytest.fixture(params=INPUTS)
def inputs(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    words = INPUTS[request.param]
    return [*words, f"file:{tmp_path}/found"] if request.param == "worker" else words


@pytest.mark.parametrize(
    ("load", "said"),
    [
        ("os._exit(3)", "The engine ended with exit code 3: reading."),
        ("os.abort()", "The engine ended with signal SIGABRT: reading."),
        ("print('CUDA error', flush=True); os._exit(3)", "exit code 3: reading | CUDA error."),
    ],
)
def test_it_dies_while_it_loads(
    inputs: list[str], load: str, said: str, engine: Callable[[str], Path]
) -> None:
    assert _mistake(*inputs, f"out={engine(load)}").endswith(said)


def test_it_is_killed_while_it_loads(inputs: list[str], engine: Callable[[str], Path]) -> None:
    words = [*COMMAND, *inputs, f"out={engine('time.sleep(60)')}", "-v"]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write("hi")
        process.stdin.close()
        while "reading" not in process.stderr.readline():
            pass
        [host] = children(process.pid)
        os.kill(host, signal.SIGKILL)
        assert process.wait(20) == 2
        last = process.stderr.read().splitlines()[-1]
    assert last == (
        "dynemo-run: The engine ended with signal SIGKILL, as the system does it to a process "
        "that takes too much memory: reading."
    )


def test_it_dies_while_it_answers(engine: Callable[[str], Path]) -> None:
    done = run("in=stdin", f"out={engine('pass')}", stdin="hi")
    assert done.returncode == 1
    assert done.stdout.startswith("one ")
    assert "Traceback" not in done.stderr
    assert "The engine ended with exit code 7: reading | kernel.cu:31: bad address." in done.stderr
    assert done.stderr.splitlines()[-1] == (
        "dynemo-run: The engine ended 2 times while it worked on this request, which is not tried "
        "again. Change the prompt or its settings."
    )
