"""`out=trtllm` with a stand-in. `standins/README.md` lists the parts that are like TensorRT-LLM."""

import asyncio
import json
import os
import signal
import subprocess
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from dynemo.engines.trtllm.adapter import llm_arguments
from dynemo.errors import EngineError, EngineLost, UsageError
from dynemo.messages.answer import TextPiece
from dynemo.messages.records import Load
from dynemo.messages.request import Request, Sampling
from dynemo.messages.spec import EngineSpec, Parallel
from dynemo.serving.local import watchdog
from dynemo.serving.local.child import spawn
from dynemo.serving.local.instance import LocalInstance, local_instance
from support.command import COMMAND, children, is_alive, run
from support.engine_contract import GREEDY, ModelContract, Served, count, idle, serving
from support.trtllm_standin import make_engine_folder, python_with_standin
from support.waiting import wait_until

NODES = ["--num-nodes", "2", "--tensor-parallel-size", "2"]


@pytest.fixture(scope="module")
def with_standin(tmp_path_factory: pytest.TempPathFactory) -> str:
    return python_with_standin(tmp_path_factory.mktemp("trtllm"))


@pytest.fixture(scope="module")
def engine_folder(tmp_path_factory: pytest.TempPathFactory, demo_folder: Path) -> Path:
    return make_engine_folder(tmp_path_factory.mktemp("engine"), demo_folder)


class _StandIn(ModelContract):
    @pytest.fixture(scope="class")
    @classmethod
    def python(cls, with_standin: str) -> str:
        return with_standin

    @pytest.fixture
    def eos(self, demo_folder: Path) -> int:
        said = json.loads((demo_folder / "config.json").read_text())["eos_token_id"]
        token_id: int = said[0] if isinstance(said, list) else said
        return token_id

    @pytest.fixture
    def own(self, prompt: list[int]) -> int:
        return (sum(prompt) + 7 * 2) % 900 + 20  # the rule of the stand-in

    @pytest.mark.parametrize("temperature", [0.0])
    def test_log_probabilities_are_those_of_the_model(
        self, served: Served, prompt: list[int], temperature: float
    ) -> None:
        """They follow the rule of the stand-in."""
        for likeliest in (0, 3):
            sampling = Sampling(temperature=temperature)
            request = self.request(prompt, 9, logprobs=likeliest, sampling=sampling)
            texts = [each for each in self.scored(served, request) if isinstance(each, TextPiece)]
            entries = [entry for piece in texts for entry in piece.logprobs]
            assert "".join(entry.text for entry in entries) == "".join(each.text for each in texts)
            assert entries
            for entry in entries:
                assert entry.logprob == pytest.approx(-entry.id / 100)
                found = [(each.id, each.logprob) for each in entry.top]
                assert found == [(1, -0.5), (2, -1.0), (3, -1.5)][:likeliest]

    def test_salts_share_no_cache(
        self, served: Served, prompt: list[int], spec: EngineSpec
    ) -> None:
        """The version that the stand-in copies has no salt."""
        with pytest.raises(EngineError, match=r"cannot keep the caches of API keys apart"):
            served.collect(self.request(prompt, 3, cache_salt="alice"))


class TestCheckout(_StandIn):
    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls, demo_folder: Path) -> EngineSpec:
        return EngineSpec(
            engine="trtllm", model=str(demo_folder), workdir="", context_length=4096, slots=6
        )


class TestEngineFolder(_StandIn):
    follows_guides = False  #: only the PyTorch backend does

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls, engine_folder: Path) -> EngineSpec:
        return EngineSpec(engine="trtllm", model=str(engine_folder), workdir="")

    def test_its_limits_are_those_that_it_was_built_with(self, served: Served) -> None:
        instance = served.local.instance
        assert instance is not None
        assert (instance.context_length, instance.slots) == (3072, 4)


async def _loads(local: LocalInstance) -> tuple[Load, Load]:
    """Returns the loads during and after an answer of 2000 tokens to a prompt of 200."""
    request = Request(
        id="r",
        token_ids=[30] * 200,
        prompt="",
        max_tokens=2000,
        sampling=GREEDY,
        ignore_eos=True,
    )
    assert local._client is not None
    async with aclosing(local.generate(request)) as deltas:
        await anext(deltas)
        async with asyncio.timeout(15):
            asked = 0
            while local.load.running == 0 or asked < 10:  # it may be from before a step
                local._client.ping()
                await asyncio.sleep(0.02)
                asked += 1
        busy = local.load
    await idle(local)
    return busy, local.load


def test_the_use_of_its_cache_is_that_of_its_newest_step(
    with_standin: str, engine_folder: Path
) -> None:
    spec = EngineSpec(engine="trtllm", model=str(engine_folder), workdir="")
    with serving(spec, with_standin) as served:
        busy, after = served.run(_loads(served.local))
    blocks = 4 * 3072 / 8
    assert 200 / 8 / blocks <= busy.kv_use <= 2200 / 8 / blocks
    assert after == Load()


@pytest.mark.parametrize("stats", ["old", "failing"])
def test_it_counts_where_the_engine_tells_nothing(
    with_standin: str, engine_folder: Path, stats: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRTLLM_STANDIN_STATS", stats)
    spec = EngineSpec(engine="trtllm", model=str(engine_folder), workdir="")
    with serving(spec, with_standin) as served:
        assert served.run(_loads(served.local)) == (Load(running=1), Load())


def test_its_statistics_can_be_turned_off(with_standin: str, demo_folder: Path) -> None:
    off = ["--enable-iter-perf-stats=false"]
    spec = EngineSpec(engine="trtllm", model=str(demo_folder), workdir="", options=off)
    with serving(spec, with_standin) as served:
        assert served.run(_loads(served.local)) == (Load(running=1), Load())


def _spec(**said: Any) -> EngineSpec:
    return EngineSpec(engine="trtllm", model="m", workdir="", **said)


@pytest.mark.parametrize("rank", [0, 1])
def test_the_arguments_that_reach_it(rank: int) -> None:
    """TensorRT-LLM learns about its nodes from MPI: only the number of devices is an argument."""
    parallel = Parallel(tensor=8, nodes=2, rank=rank, leader="10.0.0.1:9876")
    spec = _spec(
        parallel=parallel,
        context_length=4096,
        options=["--max-batch-size", "4"],
        extra={"kv_cache_config": {"free_gpu_memory_fraction": 0.5}},
    )
    assert llm_arguments(spec, ["max_batch_size", "kv_cache_config"]) == {
        "model": "m",
        "skip_tokenizer_init": True,
        "tensor_parallel_size": 8,
        "max_seq_len": 4096,
        "max_batch_size": 4,
        "kv_cache_config": {"free_gpu_memory_fraction": 0.5},
    }


def test_of_its_statistics_the_newest_are_kept() -> None:
    arguments = llm_arguments(_spec(), ["enable_iter_perf_stats", "max_stats_len"])
    assert (arguments["enable_iter_perf_stats"], arguments["max_stats_len"]) == (True, 1)


def test_an_extra_argument_that_it_does_not_have() -> None:
    with pytest.raises(
        UsageError, match='"max_bach_size" in --extra-engine-args; did you mean "max_batch_size"'
    ):
        llm_arguments(_spec(extra={"max_bach_size": 4}), ["max_batch_size"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--tensor-parallel-size", "8"], "Only 1 GPUs are available, but 8 are required."),
        (["--", "--max-bach-size", "4"], 'did you mean "--max-batch-size"?'),
        (["--num-nodes", "2"], "trtllm-llmapi-launch"),
    ],
)
def test_invalid_settings_are_refused(
    with_standin: str, demo_folder: Path, words: list[str], sentence: str
) -> None:
    done = run("out=trtllm", demo_folder, "--engine-python", with_standin, *words, stdin="hi")
    assert done.returncode == 2
    assert sentence in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_an_architecture_that_it_does_not_know(
    with_standin: str, demo_folder: Path, tmp_path: Path
) -> None:
    for file in demo_folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    config = json.loads((demo_folder / "config.json").read_text())
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["NewLM"]}))
    done = run("out=trtllm", tmp_path, "--engine-python", with_standin, stdin="hi")
    assert done.returncode == 2
    assert "Unknown architecture for AutoModelForCausalLM: NewLM" in done.stderr.splitlines()[-1]


def test_an_engine_folder_needs_a_tokenizer(with_standin: str, engine_folder: Path) -> None:
    done = run("out=trtllm", engine_folder, "--engine-python", with_standin, stdin="hi")
    assert done.returncode == 2
    assert "--model-config" in done.stderr


def test_an_engine_folder_goes_to_no_other_engine(engine_folder: Path) -> None:
    done = run("out=llama_cpp", engine_folder, stdin="hi")
    assert done.returncode == 2
    assert "is a TensorRT-LLM engine, but llama_cpp needs a GGUF file" in done.stderr


def test_an_engine_folder_was_built_for_so_many_devices(
    with_standin: str, engine_folder: Path, demo_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_bytes((engine_folder / "config.json").read_bytes())
    for rank in range(2):
        (tmp_path / f"rank{rank}.engine").touch()
    words: list[str | Path] = ["--model-config", demo_folder, "--engine-python", with_standin]
    done = run("out=trtllm", tmp_path, *words, stdin="hi")
    assert done.returncode == 2
    assert "Use --tensor-parallel-size 2" in done.stderr


def test_the_stages_of_a_pipeline_are_no_ranks_of_tensor_parallelism(
    with_standin: str, demo_folder: Path, tmp_path: Path
) -> None:
    folder = make_engine_folder(tmp_path, demo_folder, stages=2)
    words: list[str | Path] = ["--model-config", demo_folder, "--engine-python", with_standin]
    done = run("out=trtllm", folder, *words, stdin="hi")
    assert done.returncode == 0, done.stderr


def test_what_ends_in_its_processes_ends_the_engine(
    with_standin: str, engine_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runner then restarts the engine, but not in this test.

    TensorRT-LLM itself reports its end only to new requests, not to waiting ones.
    """
    monkeypatch.setenv("TRTLLM_STANDIN_LAST_STEP", "20")
    spec = EngineSpec(engine="trtllm", model=str(engine_folder), workdir="")
    endless = Request(
        id="r", token_ids=[30], prompt="", max_tokens=2000, sampling=GREEDY, ignore_eos=True
    )
    with serving(spec, with_standin) as served:

        async def body() -> None:
            with pytest.raises(EngineLost):
                await count(served.local.generate(endless))
            async with asyncio.timeout(15):
                with pytest.raises(
                    EngineLost, match=r"TensorRT-LLM has ended: Executor worker died"
                ):
                    await served.local.ended

        served.run(body())


def test_a_follower_waits_for_its_leader_and_ends_when_told(
    with_standin: str, demo_folder: Path
) -> None:
    words = ["in=none", "out=trtllm", str(demo_folder), *NODES, "--node-rank", "1", "-v"]
    process = subprocess.Popen(
        [*COMMAND, *words, "--engine-python", with_standin],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMPI_COMM_WORLD_RANK": "1"},
    )
    assert process.stderr is not None
    with process, process.stderr as lines:
        try:
            said = [next(lines) for _ in range(2)]
            [host] = children(process.pid)
            [worker] = children(host)
            process.terminate()
            process.wait(10)
        finally:
            process.kill()
    assert "rank 1 of 2 · engine trtllm\n" in said
    assert "worker rank waits" in "".join(said)
    wait_until(lambda: not is_alive(worker))


def test_a_follower_that_has_joined_lives_until_its_worker_ends(
    with_standin: str, demo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setattr(watchdog, "TICK", 0.2)
    parallel = Parallel(tensor=2, nodes=2, rank=1)
    spec = EngineSpec(engine="trtllm", model=str(demo_folder), workdir="", parallel=parallel)

    async def body() -> None:
        child = spawn(spec, with_standin)
        async with local_instance(child, None) as (local, ready), asyncio.timeout(15):
            await ready
            await asyncio.sleep(1.5)  # the runner pings the host in this time
            assert local.trouble == ""
            [worker] = children(child.process.pid)
            os.kill(worker, signal.SIGKILL)
            await local.ended

    with pytest.raises(EngineLost, match="EngineError: TensorRT-LLM's worker ended with") as caught:
        asyncio.run(body())
    assert caught.value.exit_code == 1


def test_a_follower_without_mpi_says_how_to_start_it(with_standin: str, demo_folder: Path) -> None:
    words: list[str | Path] = ["in=none", "out=trtllm", demo_folder, *NODES, "--node-rank", "1"]
    done = run(*words, "--engine-python", with_standin)
    assert done.returncode == 2
    assert "trtllm-llmapi-launch" in done.stderr.splitlines()[-1]


def test_rank_0_under_the_launcher_is_given_all_devices(
    with_standin: str, demo_folder: Path
) -> None:
    done = run(
        "out=trtllm",
        demo_folder,
        *NODES,
        "-v",
        "--engine-python",
        with_standin,
        stdin="hi",
        TRTLLM_STANDIN_DEVICES="2",
        TLLM_SPAWN_PROXY_PROCESS="1",  # trtllm-llmapi-launch sets it on rank 0
    )
    assert done.returncode == 0
    assert '"tensor_parallel_size": 2' in done.stderr
