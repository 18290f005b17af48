"""The engine contract with SGLang itself, on the CPU, and the specifics of its adapter."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from dynemo.errors import EngineLost, RequestError, Unavailable
from dynemo.messages.spec import EngineSpec
from support.command import children
from support.engine_contract import ModelContract, Served, count

#: It loads in 40 s on two idle cores, mostly because of its imports.
READY_SECONDS = 400


@pytest.mark.timeout(READY_SECONDS + 60)
class TestSgLang(ModelContract):
    ready_seconds = READY_SECONDS
    each_schema = 6

    @pytest.fixture(scope="class")
    @classmethod
    def python(cls, engine_python: Callable[[str], str]) -> str:
        return engine_python("sglang")

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls, demo_folder: Path) -> EngineSpec:
        return EngineSpec(
            engine="sglang",
            model=str(demo_folder),
            workdir="",
            model_context=4096,
            kv_bytes_per_token=2048,
            vocabulary=1536,
            options=["--max-queued-requests", "12"],
        )

    def test_the_whole_context_is_there(self, served: Served, prompt: list[int]) -> None:
        instance = served.local.instance
        assert instance is not None
        assert instance.context_length == 4096
        full = (prompt * 4096)[:4095]
        assert served.collect(self.request(full, 1))[1].completion_tokens == 1
        with pytest.raises(RequestError, match="4095"):
            served.collect(self.request(full, 20))

    def test_a_full_queue_refuses_requests_that_may_come_again(
        self, served: Served, prompt: list[int]
    ) -> None:
        """The user limited the engine's queue.

        In a pool another instance would take the request.
        """

        async def body() -> list[int | BaseException]:
            request = self.request(prompt, 40, ignore_eos=True)
            asked = (count(served.local.generate(request)) for _ in range(60))
            return await asyncio.gather(*asked, return_exceptions=True)

        refused = [each for each in served.run(body()) if each != 40]
        assert 0 < len(refused) < 60
        assert all(isinstance(each, Unavailable) for each in refused)
        assert str(refused[0]) == "SGLang: The request queue is full."

    def test_a_scheduler_that_dies_ends_the_engine_in_a_sentence(
        self, served: Served, prompt: list[int]
    ) -> None:
        """The last test of the class, because the engine is gone afterwards."""

        async def body() -> None:
            async with aclosing(
                served.local.generate(self.request(prompt, 3000, ignore_eos=True))
            ) as stream:
                await anext(stream)
                [scheduler] = _schedulers()
                os.kill(scheduler, signal.SIGKILL)
                with pytest.raises(EngineLost):
                    async for _ in stream:
                        pass
            async with asyncio.timeout(30):
                with pytest.raises(EngineLost, match=r"scheduler_0 .* crashed with exit code -9"):
                    await served.local.ended
            assert _schedulers() == []

        served.run(body())


def _schedulers() -> list[int]:
    """Returns the pids of the schedulers of this process's hosts. SGLang names its processes."""
    return [
        pid
        for host in children(os.getpid())
        for pid in children(host)
        if b"sglang::scheduler" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
