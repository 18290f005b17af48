"""Suspects after the death of an engine, and the time at which they may start."""

import asyncio

import pytest

from dynemo.errors import EngineLost, HandedBack, InstanceLost, RequestCrashedEngine
from dynemo.messages.answer import Delta
from dynemo.messages.request import Request, Sampling
from dynemo.serving import suspects as module
from dynemo.serving.migration import MigrationState, TextCodec
from dynemo.serving.suspects import Attempt, Suspects

CODEC = TextCodec(lambda _: [], lambda _: "")
DEATH = EngineLost("The engine ended.")


def _progress(limit: int = 3) -> MigrationState:
    request = Request(id="r", token_ids=[1], prompt="", max_tokens=9999, sampling=Sampling())
    return MigrationState(request, CODEC, limit=limit)


async def _started(suspects: Suspects, progress: MigrationState, tokens: int = 0) -> Attempt:
    progress.begin_anew()
    attempt = suspects.attempt("a", progress)
    async with asyncio.timeout(1):
        await attempt.start()
    if tokens:
        progress.take(Delta([7] * tokens))
        attempt.check()
    return attempt


def _lost(*attempts: Attempt, error: EngineLost = DEATH) -> None:
    for attempt in attempts:
        attempt.lost(error)
        attempt.end()


def test_the_requests_without_a_token_are_suspects_and_the_others_are_cleared() -> None:
    async def body() -> None:
        suspects, old, new = Suspects(), _progress(), _progress()
        _lost(await _started(suspects, old, 5), await _started(suspects, new))
        assert (old.is_suspect, old.deaths, old.moves) == (False, 0, 0)
        assert (new.is_suspect, new.deaths, new.moves) == (True, 1, 1)

    asyncio.run(body())


def test_all_are_suspects_if_each_has_its_tokens() -> None:
    async def body() -> None:
        suspects, several = Suspects(), [_progress() for _ in range(3)]
        _lost(*[await _started(suspects, one, 5) for one in several])
        assert [one.is_suspect for one in several] == [True] * 3

    asyncio.run(body())


def test_a_request_fails_after_its_second_death_alone() -> None:
    async def body() -> None:
        suspects, poison, other = Suspects(), _progress(), _progress()
        _lost(await _started(suspects, poison), await _started(suspects, other))
        stays = await _started(suspects, _progress(), 1)
        again = await _started(suspects, poison)
        with pytest.raises(RequestCrashedEngine, match="2 times"):
            again.lost(DEATH)
        again.end()
        _lost(stays)
        retried = await _started(suspects, other, 1)
        retried.end()

    asyncio.run(body())


def test_one_suspect_at_a_time_starts_on_an_instance() -> None:
    async def body() -> None:
        suspects, several = Suspects(), [_progress() for _ in range(3)]
        _lost(*[await _started(suspects, one) for one in several])
        running, most = 0, 0

        async def run(progress: MigrationState) -> None:
            nonlocal running, most
            progress.begin_anew()
            attempt = suspects.attempt("a", progress)
            await attempt.start()
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            progress.take(Delta([7]))
            attempt.check()
            running -= 1
            attempt.end()

        assert not suspects.has_suspect("a")
        async with asyncio.TaskGroup() as tasks:
            for one in several:
                tasks.create_task(run(one))
            await asyncio.sleep(0)
            assert suspects.has_suspect("a")
        assert most == 1
        assert not suspects.has_suspect("a")

    asyncio.run(body())


def test_a_suspect_waits_only_for_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SUSPECT_SECONDS", 0.05)
    monkeypatch.setattr(module, "_NEW_SECONDS", 0.05)

    async def body() -> None:
        suspects, poison = Suspects(), _progress()
        _lost(await _started(suspects, poison))
        stuck = await _started(suspects, _progress())
        retried = await _started(suspects, poison)
        new = await _started(suspects, _progress())
        for attempt in (stuck, retried, new):
            attempt.end()
        assert not suspects.has_suspect("a")

    asyncio.run(body())


def test_a_suspect_that_waits_when_the_engine_dies_is_not_blamed_again() -> None:
    async def body() -> None:
        suspects, first, second = Suspects(), _progress(), _progress()
        _lost(await _started(suspects, first), await _started(suspects, second))
        running = await _started(suspects, first)
        second.begin_anew()
        waiting = suspects.attempt("a", second)
        task = asyncio.create_task(waiting.start())
        await asyncio.sleep(0.01)
        assert not task.done()
        with pytest.raises(RequestCrashedEngine):
            running.lost(DEATH)
        running.end()
        await task
        assert second.deaths == 1
        waiting.end()
        assert not suspects.has_suspect("a")

    asyncio.run(body())


def test_two_deaths_in_a_crowd_end_nobody() -> None:
    async def body() -> None:
        suspects, several = Suspects(), [_progress() for _ in range(2)]
        for _ in range(2):
            for one in several:
                one.is_suspect = False  # their wait to be alone was over
            _lost(*[await _started(suspects, one, 40) for one in several])
        assert [one.deaths for one in several] == [2, 2]
        alone = await _started(suspects, several[0], 40)
        assert suspects.has_suspect("a")  # until it has more tokens than before
        alone.end()

    asyncio.run(body())


def test_a_lost_worker_is_no_death_and_a_planned_stop_is_no_move() -> None:
    async def body() -> None:
        suspects, one = Suspects(), _progress(limit=1)
        for _ in range(3):
            _lost(await _started(suspects, one), error=HandedBack("It stops."))
        assert (one.moves, one.is_suspect) == (0, False)
        _lost(await _started(suspects, one), error=InstanceLost("Gone."))
        assert (one.moves, one.deaths, one.is_suspect) == (1, 0, True)
        with pytest.raises(InstanceLost):
            _lost(await _started(suspects, one, 3), error=InstanceLost("Gone."))

    asyncio.run(body())


def test_the_count_of_moves_restarts_after_progress_on_a_worker_that_is_lost() -> None:
    async def body() -> None:
        suspects, one = Suspects(), _progress(limit=1)
        for _ in range(5):
            _lost(await _started(suspects, one, 16), error=InstanceLost("Gone."))
            assert one.moves == 1
        with pytest.raises(InstanceLost):
            _lost(await _started(suspects, one, 15), error=InstanceLost("Gone."))
        none = _progress(limit=0)
        with pytest.raises(InstanceLost):
            _lost(await _started(suspects, none, 16), error=InstanceLost("Gone."))

    asyncio.run(body())


def test_the_limit_of_moves_holds_for_deaths_in_a_crowd() -> None:
    async def body() -> None:
        suspects, one, other = Suspects(), _progress(limit=1), _progress(limit=1)
        _lost(await _started(suspects, one, 1), await _started(suspects, other, 1))
        for each in (one, other):
            each.is_suspect, each.probation = False, 1
        both = [await _started(suspects, each, 1) for each in (one, other)]
        with pytest.raises(RequestCrashedEngine):
            both[0].lost(DEATH)

    asyncio.run(body())
