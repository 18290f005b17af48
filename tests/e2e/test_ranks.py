"""The ranks of an engine on several machines: invalid settings, and the spec of each rank."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import json

from dynemo.app.run import _unless_lost
from dynemo.engines.ranks import ranks_here
from dynemo.engines.sglang import args as sglang_args
from dynemo.errors import EngineLost, UsageError
from dynemo.messages.spec import EngineSpec, Parallel
from support.command import run
from support.short_lived import LAST_WORDS, short_lived

LEADER = "10.217.98.122:9876"
NODES = ["--num-nodes", "2", "--dist-init-addr", LEADER]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["in=http", *NODES, "--node-rank", "2"], "--node-rank 2 is out of range"),
        (["in=none", *NODES, "--node-rank", "0"], "this is rank 0"),
        (["in=none", *NODES], "give it in=http"),
        (["in=http", *NODES, "--node-rank", "1"], "give it in=none, not in=http"),
        (["in=http", "--num-nodes", "2"], "--num-nodes 2 needs --dist-init-addr HOST:PORT"),
        (["in=http", *NODES[2:]], "--dist-init-addr needs --num-nodes 2 or more."),
        (["in=http", "--node-rank", "1"], "with --num-nodes 1 it is at most 0"),
        (["in=http", *NODES[:3], "10.0.0.1"], '--dist-init-addr takes HOST:PORT, not "10.0.0.1".'),
        (
            ["in=http", *NODES[:2], "--leader-addr", ":98"],
            '--leader-addr takes HOST:PORT, not ":98".',
        ),
        (["in=http", "--num-nodes", "0"], '--num-nodes takes a whole number from 1 up, not "0".'),
        (
            ["in=http", "out=llama_cpp", *NODES],
            "splits a model over machines: out=vllm, out=sglang or",
        ),
        (
            ["in=http", "out=echo", "--tensor-parallel-size", "2"],
            "splits a model over devices: out=vllm, out=sglang or",
        ),
        (["in=http", "out=trtllm", *NODES], "--dist-init-addr needs an engine whose machines meet"),
        (["in=http", "out=dyn://pool", *NODES], "this run has in=http out=dyn://pool."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_ranks_that_do_not_fit(words: list[str], said: str) -> None:
    engine = [] if any(word.startswith("out=") for word in words) else ["out=sglang"]
    done = run(*words, *engine)
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.splitlines()
    assert said in line


@pytest.fixture
def recorder(tmp_path: Path) -> Path:
    """Makes a fake Python that has every engine. It keeps the spec that the engine's host gets."""
    program = tmp_path / "python"
    program.write_text(
        f'#!/bin/sh\nif [ "$1" = -c ]; then echo 3.11; exit; fi\n'
        f"cp \"$5\" '{tmp_path}/spec'\nexit 3\n"
    )
    program.chmod(0o755)
    return program


def _recorded_spec(recorder: Path) -> EngineSpec:
    return json.decode((recorder.parent / "spec").read_bytes(), type=EngineSpec)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
@pytest.mark.parametrize("rank", [0, 1])
def test_the_host_of_each_rank_gets_its_spec(
    engine: str, rank: int, recorder: Path, demo_folder: Path
) -> None:
    words = f"--tensor-parallel-size 8 --num-nodes 2 --node-rank {rank}"
    leader = "" if engine == "trtllm" else LEADER
    words += f" --dist-init-addr {leader}" if leader else ""
    done = run(
        *("in=none" if rank else "in=stdin", f"out={engine}", "--model-path", demo_folder),
        *words.split(),
        *("--engine-python", recorder),
        stdin="hi",
    )
    spec = _recorded_spec(recorder)
    assert spec.engine == engine
    assert spec.model == str(demo_folder)
    assert spec.parallel == Parallel(tensor=8, nodes=2, rank=rank, leader=leader)
    assert "exit code 3" in done.stderr.splitlines()[-1]
    assert done.returncode == 2


def test_a_rank_that_has_joined_fails_while_running(tmp_path: Path, demo_folder: Path) -> None:
    done = run(
        *("in=none", "out=sglang", "--model-path", demo_folder),
        *(*NODES, "--node-rank", "1"),
        *("--engine-python", short_lived(tmp_path)),
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"dynemo-run: Rank 1 has ended, as it does when its leader at {LEADER} ends. {LAST_WORDS}"
    )


@pytest.mark.parametrize("rank", [0, 1])
def test_the_arguments_of_sglang(rank: int) -> None:
    parallel = Parallel(tensor=8, nodes=2, rank=rank, leader=LEADER)
    spec = EngineSpec(engine="sglang", model="m", workdir="", parallel=parallel)
    assert sglang_args.defaults(spec, is_cpu=False) == {
        "model_path": "m",
        "skip_tokenizer_init": True,
        "incremental_streaming_output": True,
        "log_level": "warning",
        "tp_size": 8,
        "nnodes": 2,
        "node_rank": rank,
        "dist_init_addr": LEADER,
    }


def _result(work: Callable[[], object], error: Exception | None) -> int:
    async def body() -> int:
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if error is not None:
            asyncio.get_running_loop().call_later(0.01, ended.set_exception, error)
        return await _unless_lost(_wait(), ended)

    async def _wait() -> int:
        try:
            await asyncio.sleep(0.05 if error is None else 60)
        finally:
            work()
        return 7

    return asyncio.run(body())


def test_a_chat_or_a_batch_ends_with_an_engine_that_is_not_started_again() -> None:
    seen: list[int] = []
    with pytest.raises(EngineLost, match="gone"):
        _result(lambda: seen.append(1), EngineLost("gone"))
    assert seen == [1]
    assert _result(lambda: None, None) == 7


def test_a_build_for_a_gpu_where_there_is_none_names_no_flag_that_nobody_gave() -> None:
    with pytest.raises(UsageError, match="This build of the engine needs a GPU, but finds none"):
        ranks_here(Parallel(), 0, "GPU")
