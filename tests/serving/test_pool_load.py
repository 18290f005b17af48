"""The load that instances report, and the pool's choice of an instance."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from dynemo.messages.answer import Delta, Finish
from dynemo.messages.records import Load
from dynemo.messages.request import Request, Sampling
from dynemo.router.router import make_router
from dynemo.serving import pool as module
from dynemo.serving.migration import TextCodec
from dynemo.serving.pool import Pool
from support.records import make_instance, make_record

REQUEST = Request(id="r", token_ids=[1], prompt="", max_tokens=1, sampling=Sampling())


class Remote:
    """An instance that counts its requests and reports the load that a test sets."""

    is_doubtful = False

    def __init__(self, name: str) -> None:
        self.record = make_record(make_instance(name, slots=2))
        self.load = Load()
        self.asked = 0

    async def generate(
        self, request: Request, cancel_reader: Any = None
    ) -> AsyncGenerator[Delta, None]:
        self.asked += 1
        yield Delta([1], finish=Finish("length", 1, 1))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replaces the pool's clock. A test sets its time."""
    now = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    return now


def asked(pool: Any, *remotes: Remote, number: int = 6) -> list[int]:
    """Sends requests one after the other. Returns how many each instance got."""
    before = [remote.asked for remote in remotes]

    async def body() -> None:
        for _ in range(number):
            async with aclosing(pool.generate(REQUEST)) as deltas:
                async for _ in deltas:
                    pass

    asyncio.run(body())
    return [remote.asked - was for remote, was in zip(remotes, before, strict=True)]


@pytest.mark.parametrize("mode", ["least-loaded", "prefix"])
def test_requests_of_other_ingresses_count_without_a_stream_of_ours(
    mode: str, clock: list[float]
) -> None:
    pool: Any = Pool(make_router(mode, 1), TextCodec(lambda _: [], lambda _: ""), 3)
    one, other = Remote("one"), Remote("other")
    pool.add(one)
    pool.add(other)
    one.load = Load(running=9)
    assert asked(pool, one, other) == [0, 6]
    one.load, other.load = Load(), Load(running=9)
    clock[0] += 2
    assert asked(pool, one, other) == [6, 0]


def test_a_cache_that_fills_up_counts(clock: list[float]) -> None:
    pool: Any = Pool(make_router("least-loaded", 1), TextCodec(lambda _: [], lambda _: ""), 3)
    one, other = Remote("one"), Remote("other")
    pool.add(one)
    pool.add(other)
    one.load, other.load = Load(1, 0, 0.9), Load(1, 0, 0.1)
    assert asked(pool, one, other) == [0, 6]
