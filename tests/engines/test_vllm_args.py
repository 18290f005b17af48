"""The arguments that vLLM gets, and its failures. The first half needs no vLLM."""

import asyncio
import json
import logging
import logging.config
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import json as wire
from msgspec import structs

from dynemo.engines.vllm.adapter import check_request
from dynemo.engines.vllm.args import defaults
from dynemo.engines.vllm.log import Log, reason_of
from dynemo.errors import RequestError, UsageError
from dynemo.messages.request import Request, Sampling
from dynemo.messages.spec import EngineSpec, Parallel
from support.engine_contract import running
from support.free_ports import free_port

SRC = Path(__file__).parent.parent.parent / "src"
GIB = 1 << 30


def _spec(**fields: Any) -> EngineSpec:
    base: dict[str, Any] = {"model": "/models/m", "model_context": 4096, "kv_bytes_per_token": 1000}
    return EngineSpec(engine="vllm", workdir="", **(base | fields))


def test_gpu_defaults_are_vllm_s_own() -> None:
    assert defaults(_spec(), cpu_memory=None) == {
        "model": "/models/m",
        "skip_tokenizer_init": True,
        "language_model_only": True,
        "generation_config": "vllm",
        "max_model_len": -1,
        "tensor_parallel_size": 1,
    }


def test_the_user_s_settings_and_those_of_the_input() -> None:
    made = defaults(_spec(context_length=1000, slots=1), cpu_memory=None)
    assert (made["max_model_len"], made["max_num_seqs"]) == (1000, 1)


def test_the_kv_cache_on_a_cpu_is_what_sequences_need_and_memory_has() -> None:
    def kv(memory: int, **fields: Any) -> int:
        made: int = defaults(_spec(**fields), cpu_memory=memory)["kv_cache_memory_bytes"]
        return made

    assert kv(100 * GIB) == 16 * 4096 * 2 * 1000
    assert kv(100 * GIB, context_length=100) == 16 * 100 * 2 * 1000
    assert kv(400_000) == 100_000
    assert kv(4 * GIB, kv_bytes_per_token=0) == GIB  # the size is unknown


def test_the_folder_of_model_config_is_a_gguf_s_configuration(demo: Path) -> None:
    made = defaults(_spec(model=str(demo), tokenizer_source="/models/words"), cpu_memory=None)
    assert made["hf_config_path"] == "/models/words"
    assert "hf_config_path" not in defaults(
        _spec(tokenizer_source="/models/words"), cpu_memory=None
    )


async def _refusal(spec: EngineSpec) -> str:
    with pytest.raises(UsageError) as caught:
        async with running(spec):
            pass
    return str(caught.value)


def test_a_gguf_is_refused_before_anything_is_loaded(demo: Path) -> None:
    said = asyncio.run(_refusal(_spec(model=str(demo))))  # in a Python without vLLM
    assert "only with vllm-gguf-plugin" in said
    assert "out=llama_cpp" in said


def test_a_request_that_would_end_the_worker_is_refused() -> None:
    def check(ids: list[int], biased: int) -> None:
        sampling = Sampling(logit_bias=dict.fromkeys(range(biased), 1.0))
        request = Request(id="r", token_ids=ids, prompt="", max_tokens=1, sampling=sampling)
        check_request(request, vocabulary=5000, most_biased=1024)

    check([0, 4999], 1024)
    bad: list[list[int]] = [[], [5000], [-1]]
    for ids in bad:
        with pytest.raises(RequestError, match="Valid ids are 0 to 4999"):
            check(ids, 0)
    with pytest.raises(RequestError, match="names 1025 ids, but vLLM takes at most 1024") as caught:
        check([1], 1025)
    assert caught.value.param == "logit_bias"


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "WARNING")
    log = Log(str(tmp_path), 0)
    logging.config.dictConfig(json.loads(Path(log.config).read_text()))
    yield log
    for handler in logging.getLogger("vllm").handlers[:]:
        logging.getLogger("vllm").removeHandler(handler)


def test_the_first_error_is_the_cause_of_the_others(log: Log) -> None:
    logger = logging.getLogger("vllm.engine")
    assert log.failure() is None
    logger.error("a worker died")
    assert log.failure() == "a worker died"
    for error in (ValueError("no\n memory."), RuntimeError("the worker failed")):
        try:
            raise error
        except Exception:
            logger.exception("it failed")
    assert log.failure() == "no memory"
    log.forget()
    assert log.failure() is None


def test_the_death_of_the_core_is_not_its_own_reason(log: Log) -> None:
    class EngineDeadError(Exception):  # named like vLLM's
        pass

    try:
        raise EngineDeadError("see above")
    except EngineDeadError:
        logging.getLogger("vllm.engine").exception("it failed")
    assert log.failure() is None
    logging.getLogger("vllm.engine").error("a worker died")
    assert log.failure() == "a worker died"


def test_reasons_of_errors() -> None:
    assert reason_of(KeyError()) == "KeyError"
    assert reason_of(ValueError("Not known. Known: " + "a, " * 1000)) == "Not known"
    assert len(reason_of(ValueError("a " * 1000))) < 400
    other = 'Error:\n a warning\nTraceback (most recent call last):\n  File "x.py"\nKeyError: 5\n'
    assert reason_of(RuntimeError(other)) == "KeyError: 5"


#: Reads specs. Writes for each the result of vLLM's own parser.
_READ = """
import sys
from msgspec import json
from dynemo.engines.vllm.args import engine_args
from dynemo.errors import UsageError
from dynemo.messages.spec import EngineSpec
names, specs = json.decode(sys.stdin.buffer.read(), type=tuple[list[str], list[EngineSpec]])
said = []
for spec in specs:
    try:
        made = engine_args(spec, "/log.json")
        said.append({name: getattr(made, name) for name in names})
    except UsageError as error:
        said.append(str(error))
print()
print(json.encode(said).decode())
"""
_NAMES = [
    "model", "tensor_parallel_size", "nnodes", "node_rank", "master_addr", "master_port",
    "distributed_executor_backend", "max_model_len", "gpu_memory_utilization", "enforce_eager",
    "seed", "dtype", "language_model_only",
]  # fmt: skip


def _read(python: str, *specs: EngineSpec) -> list[Any]:
    done = subprocess.run(
        [python, "-c", _READ],
        input=wire.encode((_NAMES, specs)),
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(SRC)},
        check=True,
    )
    read: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return read


@pytest.mark.timeout(200)
def test_vllm_s_own_parser_reads_the_arguments(engine_python: Callable[[str], str]) -> None:
    """One process handles all specs, because vLLM's import is slow."""
    port = free_port()
    nodes = [Parallel(tensor=2, nodes=2, rank=rank, leader=f"127.0.0.1:{port}") for rank in (0, 1)]
    thirds = Parallel(nodes=3, rank=1, leader=f"127.0.0.1:{port}")
    specs = {
        "leader": _spec(parallel=nodes[0]),
        "follower": _spec(parallel=nodes[1]),
        "options": _spec(options=["--gpu-memory-utilization", "0.8", "--max_model_len=2k"]),
        "extra": _spec(extra={"gpu-memory-utilization": 0.7, "seed": 3}, options=["--seed", "4"]),
        "off": _spec(options=["--no-enforce-eager"]),
        "unknown": _spec(options=["--gpu-memory-utilisation", "0.8"]),
        "unknown extra": _spec(extra={"max_modellen": 8}),
        "short": _spec(options=["--max-num-seq", "2"]),  # an abbreviation
        "value": _spec(options=["--max-num-seqs", "many"]),
        "kind": _spec(extra={"enforce_eager": "yes"}),
        "ours": _spec(options=["--nnodes", "2"]),
        "our model": _spec(extra={"model": "another"}),
        "ranks": _spec(parallel=Parallel(tensor=1000)),
        "our ranks": _spec(options=["--tensor-parallel-size", "2"]),
        "stages": _spec(parallel=thirds, options=["--pipeline-parallel-size", "3"]),
        "no stages": _spec(parallel=structs.replace(thirds, tensor=2)),
        "sight": _spec(options=["--no-language-model-only"]),
    }
    read = dict(zip(specs, _read(engine_python("vllm"), *specs.values()), strict=True))
    for rank, node in enumerate((read["leader"], read["follower"])):
        assert {name: node[name] for name in _NAMES[:8]} == {
            "model": "/models/m",
            "tensor_parallel_size": 2,
            "nnodes": 2,
            "node_rank": rank,
            "master_addr": "127.0.0.1",
            "master_port": port,
            "distributed_executor_backend": "mp",
            "max_model_len": -1,
        }
    assert read["options"]["gpu_memory_utilization"] == 0.8
    assert read["options"]["max_model_len"] == 2000
    assert (read["extra"]["gpu_memory_utilization"], read["extra"]["seed"]) == (0.7, 4)
    assert read["off"]["enforce_eager"] is False
    assert 'did you mean "--gpu-memory-utilization"?' in read["unknown"]
    assert 'did you mean "max_model_len"?' in read["unknown extra"]
    assert 'did you mean "--max-num-seqs"?' in read["short"]
    assert "--max-num-seqs" in read["value"]
    assert read["kind"] == 'The vLLM option enforce_eager takes true or false, not "yes".'
    assert (
        read["ours"]
        == "The vLLM option nnodes follows from --num-nodes. Set it there, before `--`."
    )
    assert (
        read["our model"] == "The vLLM option model follows from MODEL. Set it there, before `--`."
    )
    assert read["our ranks"].startswith(
        "The vLLM option tensor_parallel_size follows from --tensor-parallel"
    )
    assert read["stages"]["nnodes"] == 3
    assert read["no stages"].startswith(
        "--tensor-parallel-size 2 cannot be divided among --num-nodes 3"
    )
    assert (read["options"]["language_model_only"], read["sight"]["language_model_only"]) == (
        True,
        False,
    )
    assert read["ranks"].startswith("--tensor-parallel-size 1000 needs 1000 ")


_LOST = """
import asyncio
from torch.distributed import TCPStore
from dynemo.engines.vllm import nodes
nodes._BEAT_SECONDS, nodes._SILENT_SECONDS = 0.1, 2.0
store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
address = ("127.0.0.1", store.port)
async def main():
    follower = asyncio.create_task(nodes.leader_lost(address, 1))
    leader = asyncio.create_task(nodes.follower_lost(address, 2))
    await asyncio.sleep(4)
    print(follower.done(), leader.done())
    follower.cancel()
    print(await leader)
asyncio.run(main())
"""


@pytest.mark.timeout(100)
def test_a_rank_that_says_nothing_is_lost(engine_python: Callable[[str], str]) -> None:
    done = subprocess.run(
        [engine_python("vllm"), "-c", _LOST],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(SRC)},
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False", "False", "1"]
