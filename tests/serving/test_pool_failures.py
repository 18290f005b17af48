"""A pool with instances that fail, refuse, or cannot be reached."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from dynemo.errors import (
    DynemoError,
    EngineError,
    IngressUnreachable,
    InstanceGone,
    Overloaded,
    RequestError,
    Unavailable,
)
from dynemo.messages.answer import Delta, Finish
from dynemo.messages.records import Load
from dynemo.messages.request import Request, Sampling
from dynemo.router.modes import MODES
from dynemo.router.router import make_router
from dynemo.serving import pool as module
from dynemo.serving.migration import TextCodec
from dynemo.serving.pool import Pool
from support.records import make_instance, make_record


class Remote:
    """An instance that raises `error`, or answers. It fails the request `poison`."""

    is_doubtful = False
    state = "ready"
    load = Load()

    def __init__(self, name: str, error: DynemoError | None = None) -> None:
        self.record = make_record(make_instance(name, slots=2))
        self.error = error
        self.asked = 0

    async def generate(
        self, request: Request, cancel_reader: Any = None
    ) -> AsyncGenerator[Delta, None]:
        self.asked += 1
        await asyncio.sleep(0)
        if request.id == "poison":
            raise EngineError("The engine cannot do that.")
        if self.error is not None:
            raise self.error
        yield Delta([1], finish=Finish("length", 1, 1))


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def pool_of(remotes: list[Remote], mode: str = "random") -> Any:
    pool: Any = Pool(make_router(mode, 1), TextCodec(lambda _: [], lambda _: ""), 3)
    for remote in remotes:
        pool.add(remote)
    return pool


def states(pool: Any) -> dict[str, str]:
    return {status.instance.id: status.state for status in pool.instances}


def answer(pool: Any, number: int = 1, at_once: int = 1, name: str = "r") -> list[Exception]:
    """The errors of so many requests."""

    async def one() -> None:
        request = Request(id=name, token_ids=[1], prompt="", max_tokens=1, sampling=Sampling())
        async with aclosing(pool.generate(request)) as deltas:
            async for _ in deltas:
                pass

    async def body() -> list[Exception]:
        errors: list[Exception] = []
        for _ in range(number // at_once):
            outcomes = await asyncio.gather(
                *(one() for _ in range(at_once)), return_exceptions=True
            )
            errors += [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        return errors

    return asyncio.run(body())


@pytest.mark.parametrize("at_once", [1, 10])
def test_a_worker_that_fails_at_once_costs_no_request(mode: str, at_once: int) -> None:
    bad = Remote("bad", EngineError("The GPU is broken."))
    pool = pool_of([Remote("one"), bad, Remote("other")], mode)
    assert answer(pool, 300, at_once) == []
    assert bad.asked < 30


def test_most_workers_fail(mode: str) -> None:
    """Two failures of one request end it. Soon no request meets two."""
    bad = [Remote(f"bad{n}", EngineError("The GPU is broken.")) for n in range(5)]
    pool = pool_of([*bad, Remote("good")], mode)
    assert len(answer(pool, 300)) < 20


def test_a_request_that_fails_everywhere_is_tried_on_two_and_leaves_the_pool_whole() -> None:
    remotes = [Remote(f"{n}") for n in range(4)]
    pool = pool_of(remotes)
    assert answer(pool, 100) == []
    before = sum(remote.asked for remote in remotes)
    for _ in range(50):
        [error] = answer(pool, name="poison")
        assert isinstance(error, EngineError)
        assert answer(pool, 4) == []
    assert sum(remote.asked for remote in remotes) - before == 50 * 2 + 50 * 4
    assert set(states(pool).values()) == {"ready"}


def test_the_only_worker_fails_a_request_once() -> None:
    only = Remote("only", EngineError("The GPU is broken."))
    [error] = answer(pool_of([only]))
    assert type(error) is EngineError
    assert only.asked == 1


def test_the_engines_error_says_more_than_a_refusal() -> None:
    pool = pool_of([Remote("bad", EngineError("broken")), Remote("busy", Overloaded("busy"))])
    kinds = {type(error) for error in answer(pool, 20)}
    assert EngineError in kinds


def test_wrong_requests_never_count() -> None:
    remotes = [Remote(f"{n}", RequestError("wrong")) for n in range(3)]
    pool = pool_of(remotes)
    assert len(answer(pool, 100)) == 100
    assert sum(remote.asked for remote in remotes) == 100
    assert set(states(pool).values()) == {"ready"}


@pytest.mark.parametrize("error", [Overloaded("busy"), Unavailable("busy")])
def test_a_pool_of_busy_workers_is_asked_a_few_times_a_request(
    mode: str, error: Unavailable
) -> None:
    remotes = [Remote(f"{n}", error) for n in range(300)]
    errors = answer(pool_of(remotes, mode), 20)
    assert {type(found) for found in errors} == {type(error)}
    assert sum(remote.asked for remote in remotes) <= 20 * 3


def test_a_busy_worker_counts_more_than_one_that_is_gone(mode: str) -> None:
    """The request can wait for it."""
    for number in range(5):
        remotes = [Remote("busy", Overloaded("busy")), Remote("gone", InstanceGone("gone"))]
        (error,) = answer(pool_of(remotes if number % 2 else remotes[::-1], mode))
        assert isinstance(error, Overloaded)


def test_workers_that_nobody_answers_for_are_asked_once(mode: str) -> None:
    gone = [Remote(f"gone{n}", InstanceGone("gone")) for n in range(12)]
    good = Remote("good")
    assert answer(pool_of([*gone, good], mode), 100) == []
    assert sum(remote.asked for remote in gone) <= 12


def test_a_worker_that_cannot_connect_is_asked_last(mode: str) -> None:
    bad = Remote("bad", IngressUnreachable("no way"))
    pool = pool_of([bad, Remote("good")], mode)
    assert answer(pool, 100) == []
    assert bad.asked <= 1
    pool.remove("good")
    [error] = answer(pool)
    assert isinstance(error, IngressUnreachable)


def test_a_probe_finds_that_it_answers_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    bad = Remote("bad", EngineError("broken"))
    pool = pool_of([bad, Remote("good")], "round-robin")
    assert answer(pool, 20) == []
    assert bad.asked == 3
    assert states(pool)["bad"] == "failing"
    now[0] += 2
    assert answer(pool, 20) == []  # the probe fails, and is answered elsewhere
    assert bad.asked == 4
    bad.error = None
    now[0] += 5
    assert answer(pool, 20) == []
    assert bad.asked >= 4 + 10
    assert states(pool)["bad"] == "ready"
