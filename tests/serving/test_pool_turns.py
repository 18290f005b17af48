"""Requests of a pool that wait for their turn on an instance."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from dynemo.errors import EngineLost, InstanceSilent
from dynemo.messages.answer import Delta, Finish
from dynemo.messages.records import Load
from dynemo.messages.request import Request, Sampling
from dynemo.router.router import make_router
from dynemo.serving.migration import TextCodec
from dynemo.serving.pool import Pool
from support.records import make_instance, make_record
from support.waiting import until


class Remote:
    """An instance that holds its requests until `release`, and then raises `error` or answers."""

    state = "ready"
    load = Load()

    def __init__(self, name: str, error: Exception | None = None) -> None:
        self.record = make_record(make_instance(name, slots=8))
        self.is_doubtful = False
        self.error = error
        self.release = asyncio.Event()
        self.asked = 0

    async def generate(
        self, request: Request, cancel_reader: Any = None
    ) -> AsyncGenerator[Delta, None]:
        self.asked += 1
        await self.release.wait()
        if self.error is not None:
            self.is_doubtful = isinstance(self.error, InstanceSilent)
            raise self.error
        yield Delta([1], finish=Finish("length", 1, 1))


async def _answer(pool: Any, number: int) -> None:
    request = Request(
        id=f"{number}", token_ids=[number], prompt="", max_tokens=1, sampling=Sampling()
    )
    async with aclosing(pool.generate(request)) as deltas:
        assert [delta.token_ids async for delta in deltas] == [[1]]


def test_requests_leave_the_queue_of_an_instance_that_falls_silent() -> None:
    """All of them would else wait there, one after the other."""

    async def body() -> None:
        pool: Any = Pool(make_router("round-robin"), TextCodec(lambda _: [], lambda _: ""), 3)
        dying = Remote("dying", EngineLost("The engine ended."))
        silent, good = Remote("silent", InstanceSilent("It does not reply.")), Remote("good")
        pool.add(dying)
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            for number in range(6):
                tasks.create_task(_answer(pool, number))
            await until(lambda: dying.asked == 6)
            pool.add(silent)
            pool.add(good)
            dying.release.set()  # its requests are suspects: each starts alone elsewhere
            await until(lambda: silent.asked + good.asked == 2)
            pool.remove("dying")
            silent.release.set()
            good.release.set()
        assert (silent.asked, good.asked) == (1, 6)

    asyncio.run(body())
