"""What every engine adapter must hold, run through a real engine host.

Subclass `EngineContract` once an engine, with a `spec` fixture. The prompts are ids of the demo
model's own vocabulary, so that real engines answer sensibly.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from dynemo.errors import DynemoError
from dynemo.messages import Delta, EngineSpec, Finish, Request, Sampling
from dynemo.runtime.child import spawn
from dynemo.runtime.local import LocalInstance, local_instance

GREEDY = Sampling(temperature=0.0)


@asynccontextmanager
async def running(spec: EngineSpec, python: str) -> AsyncIterator[LocalInstance]:
    async with local_instance(spawn(spec, python), None) as (local, ready):
        await asyncio.wait_for(ready, 15)
        yield local


async def collect(local: LocalInstance, request: Request) -> tuple[list[Any], Finish]:
    """An id or a text for each token, and the finish, which the last delta alone has."""
    ids: list[Any] = []
    finish: Finish | None = None
    async with aclosing(local.generate(request)) as deltas:
        async for delta in deltas:
            assert finish is None
            ids += delta.token_ids or delta.texts
            finish = delta.finish
    assert finish is not None
    return ids, finish


async def idle(local: LocalInstance, seconds: float = 5.0) -> None:
    """Returns once the engine itself reports nothing running."""
    assert local._asker is not None
    for _ in range(int(seconds / 0.02)):
        local._asker.ping()
        await asyncio.sleep(0.02)
        if local.load.running == local.load.waiting == 0:
            return
    raise AssertionError(f"still busy: {local.load}")


async def _exhaust(stream: AsyncIterator[Delta]) -> None:
    async for _ in stream:
        pass


class EngineContract:
    @pytest.fixture
    def python(self) -> str:
        """The interpreter that has the engine."""
        return sys.executable

    @pytest.fixture
    def prompt(self) -> list[int]:
        raise NotImplementedError

    def request(self, prompt: list[int], max_tokens: int = 32, **fields: object) -> Request:
        base = Request(id="r", token_ids=prompt, prompt="", max_tokens=max_tokens, sampling=GREEDY)
        return structs.replace(base, **fields)

    def test_says_who_it_is(self, spec: EngineSpec, python: str) -> None:
        async def body() -> None:
            async with running(spec, python) as local:
                instance = local.instance
                assert instance is not None
                assert instance.engine in (spec.engine, Path(spec.argument).name)
                assert instance.version
                assert instance.context_length >= 128
                assert instance.slots >= 1

        asyncio.run(body())

    def test_stops_at_max_tokens_and_reports_usage(
        self, spec: EngineSpec, python: str, prompt: list[int]
    ) -> None:
        async def body() -> None:
            async with running(spec, python) as local:
                for budget in (1, 2, 3):
                    ids, finish = await collect(local, self.request(prompt, budget))
                    assert len(ids) == budget
                    assert (finish.reason, finish.completion_tokens) == ("length", budget)
                    assert finish.prompt_tokens == len(prompt)

        asyncio.run(body())

    def test_answers_many_at_once_without_mixing_them(
        self, spec: EngineSpec, python: str, prompt: list[int]
    ) -> None:
        async def body() -> None:
            async with running(spec, python) as local:
                prompts = [prompt[: len(prompt) - k] for k in range(8)]
                alone = [await collect(local, self.request(p, 12)) for p in prompts]
                together = await asyncio.gather(
                    *(collect(local, self.request(p, 12)) for p in prompts)
                )
                assert [ids for ids, _ in together] == [ids for ids, _ in alone]

        asyncio.run(body())

    def test_closing_a_stream_frees_its_sequence(
        self, spec: EngineSpec, python: str, prompt: list[int]
    ) -> None:
        async def body() -> None:
            async with running(spec, python) as local:
                endless = self.request(prompt * 20, 2000, ignore_eos=True)
                streams = [local.generate(endless) for _ in range(10)]
                for stream in streams:
                    pending = asyncio.ensure_future(anext(stream))
                    await asyncio.wait([pending], timeout=0.2)
                    if not pending.done():
                        pending.cancel()
                await asyncio.gather(*(stream.aclose() for stream in streams))
                await idle(local)
                ids, _ = await collect(local, self.request(prompt, 3))
                assert len(ids) == 3

        asyncio.run(body())

    def test_ends_in_time_and_leaves_no_process(
        self, spec: EngineSpec, python: str, prompt: list[int]
    ) -> None:
        async def body() -> None:
            child = spawn(spec, python)
            async with local_instance(child, None) as (local, ready):
                await ready
                stream = local.generate(self.request(prompt * 20, 2000, ignore_eos=True))
                await anext(stream)
            assert child.process.returncode == 0
            assert not child.workdir.exists()
            with pytest.raises(DynemoError):
                await _exhaust(stream)

        asyncio.run(asyncio.wait_for(body(), 10))


class ModelContract(EngineContract):
    """Also for engines that compute: they end where the model or the request says so."""

    @pytest.fixture
    def eos(self) -> int:
        """The id that ends the answer to `prompt`."""
        raise NotImplementedError

    @pytest.fixture
    def own(self) -> int:
        """The id of the third token of the answer to `prompt`."""
        raise NotImplementedError

    def test_stops_at_eos_and_counts_it(
        self, spec: EngineSpec, python: str, prompt: list[int], eos: int
    ) -> None:
        async def body() -> None:
            async with running(spec, python) as local:
                tokens, finish = await collect(local, self.request(prompt, 200, stop_ids=[eos]))
                assert finish.reason == "stop"
                assert finish.completion_tokens == len(tokens)
                assert tokens[-1] in (eos, "")
                assert eos not in tokens[:-1]

        asyncio.run(body())

    def test_stops_at_an_id_of_the_request_s_own(
        self, spec: EngineSpec, python: str, prompt: list[int], own: int
    ) -> None:
        async def body() -> None:
            async with running(spec, python) as local:
                tokens, finish = await collect(local, self.request(prompt, 9, stop_ids=[own]))
                assert (len(tokens), finish.reason, finish.completion_tokens) == (3, "stop", 3)
                assert tokens[-1] in (own, "")

        asyncio.run(body())

    def test_says_what_it_had_cached(
        self, spec: EngineSpec, python: str, prompt: list[int], eos: int
    ) -> None:
        async def body() -> None:
            async with running(spec, python) as local:
                request = self.request(prompt, 200, stop_ids=[eos])
                await collect(local, request)
                _, finish = await collect(local, request)
                assert 0 < finish.cached_tokens <= len(prompt)

        asyncio.run(body())
