"""Clients take turns for a few threads."""

import asyncio
import threading

import pytest

from dynemo.serving.turns import Turns
from support.waiting import until


class Visitor:
    """Work in a thread, until `leave`."""

    def __init__(self, turns: Turns, client: str) -> None:
        self.is_in = False
        self._may_leave = threading.Event()
        self.task = asyncio.create_task(turns.in_thread(client, self._work))

    def _work(self) -> None:
        self.is_in = True
        self._may_leave.wait(10)
        self.is_in = False

    async def leave(self) -> None:
        self._may_leave.set()
        await asyncio.wait([self.task])
        await until(lambda: not self.is_in)


async def arrive(turns: Turns, *clients: str) -> list[Visitor]:
    visitors = [Visitor(turns, client) for client in clients]
    for _ in range(3):
        await asyncio.sleep(0)
    return visitors


def test_the_client_with_the_fewest_places_is_next() -> None:
    async def scenario() -> None:
        turns = Turns(2)
        a, b, c, other = await arrive(turns, "many", "many", "many", "few")
        await until(lambda: a.is_in and b.is_in)
        await a.leave()
        await until(lambda: other.is_in)
        assert not c.is_in
        await b.leave()
        await until(lambda: c.is_in)
        await asyncio.gather(c.leave(), other.leave())

    asyncio.run(scenario())


def test_a_cancelled_wait_gives_its_place_to_the_next() -> None:
    async def scenario() -> None:
        turns = Turns(1)
        first, second, third = await arrive(turns, "a", "b", "c")
        second.task.cancel()
        await first.leave()
        await until(lambda: third.is_in)
        await third.leave()
        assert second.task.cancelled()

    asyncio.run(scenario())


class CancelsNext(Turns):
    """Cancels a task when its turn has come, and before it runs."""

    task: "asyncio.Task[None] | None" = None

    def _leave(self, client: str, seconds: float) -> None:
        super()._leave(client, seconds)
        if self.task is not None:
            task, self.task = self.task, None
            task.cancel()


def test_a_turn_that_comes_as_the_wait_is_cancelled_is_passed_on() -> None:
    async def scenario() -> None:
        turns = CancelsNext(1)
        first, second, third = await arrive(turns, "a", "b", "c")
        turns.task = second.task
        await first.leave()
        await until(lambda: third.is_in)
        assert second.task.cancelled()
        await third.leave()

    asyncio.run(scenario())


def test_a_place_is_free_when_its_thread_has_ended() -> None:
    async def scenario() -> None:
        turns = Turns(1)
        first, second = await arrive(turns, "a", "b")
        await until(lambda: first.is_in)
        first.task.cancel()
        await asyncio.wait([first.task])
        await asyncio.sleep(0.05)
        assert not second.is_in
        await first.leave()
        await until(lambda: second.is_in)
        await second.leave()

    asyncio.run(scenario())


def test_an_error_gives_the_place_back() -> None:
    def fail() -> None:
        raise ValueError("wrong")

    async def scenario() -> None:
        turns = Turns(1)
        with pytest.raises(ValueError, match="wrong"):
            await turns.in_thread("a", fail)
        assert await turns.in_thread("b", lambda: 1) == 1

    asyncio.run(scenario())
