"""The engine contract with vLLM itself, on the CPU, and the specifics of its adapter."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from dynemo.errors import Unavailable
from dynemo.messages.request import Sampling
from dynemo.messages.spec import EngineSpec
from support.engine_contract import ModelContract, Served, count

#: It loads in a minute on two idle cores, mostly because of its imports.
READY_SECONDS = 400


@pytest.fixture(scope="module")
def python(engine_python: Callable[[str], str]) -> str:
    return engine_python("vllm")


@pytest.fixture(scope="module")
def spec(demo_folder: Path) -> EngineSpec:
    return EngineSpec(
        engine="vllm",
        model=str(demo_folder),
        workdir="",
        model_context=4096,
        kv_bytes_per_token=2048,
        # Alone or in a batch, the ids are the same. It caches whole blocks, of 128 tokens on a CPU.
        options=["--dtype", "float32", "--block-size", "32", "--max-num-queued-reqs", "24"],
    )


@pytest.mark.timeout(READY_SECONDS + 60)
class TestVllm(ModelContract):
    ready_seconds = READY_SECONDS
    each_schema = 6
    #: vLLM limits the temperature to 2, at which the demo model still gives the same answer. So
    #: this adds a bias for 16 tokens.
    hot = Sampling(temperature=2.0, logit_bias=dict.fromkeys(range(300, 316), 100.0))

    @pytest.fixture(scope="class")
    @classmethod
    def python(cls, python: str) -> str:
        return python

    def test_the_whole_context_is_there(self, served: Served, prompt: list[int]) -> None:
        instance = served.local.instance
        assert instance is not None
        assert instance.context_length == 4096
        full = (prompt * 4096)[:4095]
        assert served.collect(self.request(full, 1))[1].completion_tokens == 1

    def test_reports_cached_tokens(self, served: Served, prompt: list[int], eos: int) -> None:
        """It caches whole blocks, so the contract's prompt is too short."""
        request = self.request(prompt * 10, 3)
        served.collect(request)
        _, finish = served.collect(request)
        assert 32 <= finish.cached_tokens <= len(prompt) * 10

    def test_a_full_queue_refuses_requests_that_may_come_again(
        self, served: Served, prompt: list[int]
    ) -> None:
        """The user limited the engine's queue.

        In a pool another instance would take the request.
        """

        async def body() -> list[int | BaseException]:
            request = self.request(prompt, 40, ignore_eos=True)
            asked = (count(served.local.generate(request)) for _ in range(32))
            return await asyncio.gather(*asked, return_exceptions=True)

        results = served.run(body())
        refused = [each for each in results if each != 40]
        assert 0 < len(refused) < 32
        assert all(isinstance(each, Unavailable) for each in refused)
        assert "vLLM: " in str(refused[0])

    @pytest.fixture
    def mortal(self, served: Served) -> Served:
        return served

    def test_ends_in_time_and_leaves_no_process(self, mortal: Served, prompt: list[int]) -> None:
        super().test_ends_in_time_and_leaves_no_process(mortal, prompt)
