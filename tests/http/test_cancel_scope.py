import asyncio

import pytest

from dynemo.errors import Unavailable
from dynemo.http.cancel_scope import CancelScope

ERROR = Unavailable("Cut.")


def test_work_ends_with_the_error_and_its_finally_is_run() -> None:
    async def scenario() -> None:
        scope, steps = CancelScope(), list[str]()
        asyncio.get_running_loop().call_later(0.01, scope.cancel, ERROR)

        async def work() -> None:
            async with scope:
                try:
                    await asyncio.sleep(60)
                finally:
                    await asyncio.sleep(0)
                    steps.append("cleaned")

        with pytest.raises(Unavailable):
            await work()
        assert steps == ["cleaned"]
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)  # a leftover cancellation would end this

    asyncio.run(scenario())


def test_cutting_before_or_after_or_twice_does_nothing() -> None:
    async def scenario() -> None:
        scope = CancelScope()
        scope.cancel(ERROR)
        async with scope:
            await asyncio.sleep(0)
        scope.cancel(ERROR)
        await asyncio.sleep(0)
        twice = CancelScope()

        async def work() -> None:
            async with twice:
                twice.cancel(ERROR)
                twice.cancel(Unavailable("Other."))
                await asyncio.sleep(60)

        with pytest.raises(Unavailable, match="Cut"):
            await work()

    asyncio.run(scenario())


def test_an_error_of_the_work_s_own_wins() -> None:
    async def scenario() -> None:
        scope = CancelScope()

        async def work() -> None:
            async with scope:
                scope.cancel(ERROR)
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    raise KeyError from None

        with pytest.raises(KeyError):
            await work()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    asyncio.run(scenario())


def test_another_cancellation_passes_through() -> None:
    async def scenario() -> None:
        scope = CancelScope()

        async def work() -> None:
            async with scope:
                await asyncio.sleep(60)

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        scope.cancel(ERROR)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


def test_without_a_cut_a_cancellation_is_one() -> None:
    async def scenario() -> None:
        async def work() -> None:
            async with CancelScope():
                await asyncio.sleep(60)

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
