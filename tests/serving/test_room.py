"""The room of a model: requests that start at once, wait, or are refused."""

import asyncio
from collections.abc import Callable
from time import monotonic

import pytest

from dynemo.errors import Overloaded
from dynemo.serving import room as module
from dynemo.serving.room import Place, Room
from support.fake_backend import FakeBackend
from support.records import make_instance
from support.waiting import until


def room_of(slots: int) -> tuple[Room, FakeBackend]:
    backend = FakeBackend(make_instance("i", slots=slots))
    return Room(backend), backend


class Visitor:
    """A request that enters in a task of its own, and leaves with `leave`."""

    def __init__(self, room: Room, client: str = "a", bound: float | None = None) -> None:
        self.place = Place(client)
        self.is_in = False
        self._may_leave = asyncio.Event()
        self.task = asyncio.create_task(self._visit(room, bound))

    async def _visit(self, room: Room, bound: float | None) -> None:
        started = await room.enter(self.place, bound)
        self.is_in = True
        try:
            await self._may_leave.wait()
        finally:
            self.is_in = False
            room.leave(self.place, started)

    async def leave(self) -> None:
        self._may_leave.set()
        await self.task


async def visitors(room: Room, number: int, **how: object) -> list[Visitor]:
    made = [Visitor(room, **how) for _ in range(number)]  # type: ignore[arg-type]
    await asyncio.sleep(0.01)
    return made


async def end(*made: Visitor) -> None:
    for visitor in made:
        visitor.task.cancel()
    await asyncio.gather(*(visitor.task for visitor in made), return_exceptions=True)


def in_room(made: list[Visitor]) -> list[bool]:
    return [visitor.is_in for visitor in made]


def test_the_engine_gets_its_slots_and_a_few_more() -> None:
    async def body() -> None:
        for slots, most in ((1, 2), (8, 9), (64, 72)):
            room, _ = room_of(slots)
            made = await visitors(room, most + 3, bound=100)
            assert in_room(made) == [True] * most + [False] * 3
            assert room.waiting == 3
            await made[0].leave()
            await until(lambda one=made[most]: one.is_in)
            await end(*made)
            assert room.waiting == 0

    asyncio.run(body())


def test_the_bound_refuses_and_says_when_to_come_back() -> None:
    async def body() -> None:
        room, _ = room_of(1)
        made = await visitors(room, 2 + 3, bound=3)
        for _ in range(2):
            with pytest.raises(Overloaded) as caught:
                room.check("a", 3)
            assert caught.value.retry_after >= 1
            (refused,) = await visitors(room, 1, bound=3)
            with pytest.raises(Overloaded):
                await refused.task
        await end(*made)
        room.check("a", 3)

    asyncio.run(body())


def test_a_full_queue_does_not_keep_another_client_out() -> None:
    async def body() -> None:
        room, _ = room_of(1)
        made = await visitors(room, 2 + 3, bound=3)
        others = [Visitor(room, name, 3) for name in ("b", "c", "d", "e")]
        await asyncio.sleep(0.01)
        assert room.waiting == 6  # twice the bound
        with pytest.raises(Overloaded):
            await others[3].task
        with pytest.raises(Overloaded):
            room.check("b", 3)  # it waits already
        await made[0].leave()
        await until(lambda: others[0].is_in)
        await end(*made, *others)

    asyncio.run(body())


def test_a_bound_of_zero_lets_nobody_wait() -> None:
    async def body() -> None:
        room, _ = room_of(1)
        made = await visitors(room, 2, bound=0)
        assert in_room(made) == [True, True]
        with pytest.raises(Overloaded):
            room.check("b", 0)
        await end(*made)

    asyncio.run(body())


@pytest.mark.parametrize(("slots", "bound"), [(1, 7), (4, 4), (8, 4), (64, 32), (1024, 512)])
def test_the_bound_follows_the_slots(
    slots: int, bound: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BURST_SECONDS", 0.0)

    async def body() -> None:
        room, _ = room_of(slots)
        running = slots + max(1, slots // 8)
        made = await visitors(room, running + bound + 1)
        assert room.waiting == bound
        with pytest.raises(Overloaded):
            await made[-1].task
        await end(*made)

    asyncio.run(body())


def test_a_burst_may_wait_but_not_those_who_come_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BURST_SECONDS", 5.0)

    async def body() -> None:
        room, _ = room_of(8)
        made = await visitors(room, 9 + 16 * 8 + 1)
        assert room.waiting == 128
        with pytest.raises(Overloaded):
            await made[-1].task
        await made[0].leave()
        await until(lambda: room.waiting == 127)
        room.check("a", None)
        monkeypatch.setattr(module, "_BURST_SECONDS", 0.0)
        with pytest.raises(Overloaded):
            room.check("a", None)
        await end(*made)
        again = await visitors(room, 9 + 4)
        assert room.waiting == 4
        await end(*again)

    asyncio.run(body())


def test_one_that_leaves_the_queue_frees_its_place_at_once() -> None:
    async def body() -> None:
        room, _ = room_of(1)
        made = await visitors(room, 4, bound=2)
        await end(made[2])
        assert room.waiting == 1
        (late,) = await visitors(room, 1, bound=2)
        assert not late.task.done()
        await made[0].leave()
        await made[1].leave()
        await until(lambda: made[3].is_in and late.is_in)
        await end(*made, late)

    asyncio.run(body())


def test_one_that_leaves_in_the_moment_of_its_turn_gives_it_on() -> None:
    async def body() -> None:
        for is_first_cancelled in (True, False):
            room, _ = room_of(1)
            made = await visitors(room, 4, bound=9)
            steps: list[Callable[[], object]] = [
                made[2].task.cancel,
                lambda one=made[0]: one._may_leave.set(),  # type: ignore[misc]
            ]
            for step in steps if is_first_cancelled else reversed(steps):
                step()
            await until(lambda last=made[3]: last.is_in)
            await end(*made)
            assert room.waiting == 0
            again = await visitors(room, 2, bound=0)
            assert in_room(again) == [True, True]
            await end(*again)

    asyncio.run(body())


def test_a_wait_is_measured_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUE_SECONDS", 0.1)

    async def body() -> None:
        room, _ = room_of(1)
        made = await visitors(room, 3, bound=9)
        assert made[0].place.waited == 0.0
        with pytest.raises(Overloaded, match=r"waited 0\.1 s"):
            await made[2].task
        assert made[2].place.waited is None
        (late,) = await visitors(room, 1, bound=9)
        await made[0].leave()
        await until(lambda: late.is_in)
        assert late.place.waited is not None
        assert late.place.waited > 0.0
        await end(*made, late)

    asyncio.run(body())


def test_room_that_appears_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        room, backend = room_of(1)
        made = await visitors(room, 6, bound=9)
        backend.instance = make_instance("more", slots=8)
        await until(lambda: all(in_room(made)))
        await end(*made)

    asyncio.run(body())


def test_without_an_instance_those_who_wait_go_on_waiting_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body() -> None:
        room, backend = room_of(1)
        made = await visitors(room, 3, bound=9)
        backend.instance = None
        await made[0].leave()
        await asyncio.sleep(0.6)
        assert not made[2].is_in
        (new,) = await visitors(room, 1, bound=9)
        assert new.is_in  # the backend says why it takes no requests
        monkeypatch.setattr(module, "_AWAY_SECONDS", 0.1)
        await until(lambda: made[2].is_in)
        await end(*made, new)

    asyncio.run(body())


def test_the_time_to_come_back_is_that_of_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BURST_SECONDS", 0.0)

    async def body() -> None:
        room, _ = room_of(8)
        first = Place("a")
        await room.enter(first, None)
        room.leave(first, monotonic() - 89.9)  # a sequence takes 90 s
        made = await visitors(room, 9 + 4)
        with pytest.raises(Overloaded) as caught:
            room.check("a", None)
        assert caught.value.retry_after == 40  # 4 that wait, 9 places
        await end(*made)

    asyncio.run(body())
