"""When an instance that fails gets no more requests, and when it gets them again."""

from collections.abc import Callable

import pytest

from dynemo.router.breaker import FIRST_BACKOFF, LAST_BACKOFF, Breakers


@pytest.fixture
def clock() -> list[float]:
    return [100.0]


@pytest.fixture
def breakers(clock: list[float]) -> Breakers:
    return Breakers(lambda: clock[0])


def fail(breakers: Breakers, times: int, *, is_certain: bool = True) -> list[bool]:
    return [breakers.failed("a", "It broke.", is_certain=is_certain) for _ in range(times)]


def test_three_failures_in_sequence_open_it(breakers: Breakers) -> None:
    assert fail(breakers, 2) == [False, False]
    breakers.answered("a")
    assert fail(breakers, 4) == [False, False, True, False]
    assert breakers.open == {"a"}
    breaker = breakers.of("a")
    assert breaker is not None
    assert (breaker.cause, breaker.reason) == ("failing", "It broke.")


def test_one_answer_closes_it(breakers: Breakers) -> None:
    fail(breakers, 3)
    assert breakers.answered("a")
    assert not breakers.answered("a")
    assert not breakers.open
    assert fail(breakers, 3) == [False, False, True]


def test_requests_that_fail_everywhere_do_not_open_the_breaker_of_a_proven_instance(
    breakers: Breakers,
) -> None:
    for _ in range(100):
        fail(breakers, 2, is_certain=False)
        breakers.answered("a")
    assert not breakers.open


def test_an_engine_that_answers_nothing_at_all_opens_it_in_the_end(breakers: Breakers) -> None:
    breakers.answered("a")
    assert any(fail(breakers, 12, is_certain=False))


def test_an_instance_that_never_answered_gets_no_credit(breakers: Breakers) -> None:
    assert fail(breakers, 3, is_certain=False) == [False, False, True]


def test_a_probe_now_and_then(breakers: Breakers, clock: list[float]) -> None:
    breakers.unreachable("a", "Nobody is there.")
    gaps, last = [], clock[0]
    while clock[0] < 400:
        clock[0] += 0.1
        if breakers.due("unreachable"):
            assert breakers.due("unreachable") == ["a"]
            assert breakers.due("failing") == []
            breakers.probing("a")
            assert not breakers.due("unreachable")
            breakers.unreachable("a", "Nobody is there.")
            gaps.append(round(clock[0] - last))
            last = clock[0]
    assert gaps[:3] == [FIRST_BACKOFF, 2 * FIRST_BACKOFF, 4 * FIRST_BACKOFF]
    assert set(gaps[5:]) == {LAST_BACKOFF}


def test_requests_that_were_under_way_do_not_lengthen_the_backoff(
    breakers: Breakers, clock: list[float]
) -> None:
    fail(breakers, 50)
    clock[0] += FIRST_BACKOFF
    assert breakers.due("failing") == ["a"]


def test_a_probe_without_an_outcome_is_repeated(breakers: Breakers, clock: list[float]) -> None:
    fail(breakers, 3)
    clock[0] += FIRST_BACKOFF
    breakers.probing("a")
    clock[0] += FIRST_BACKOFF
    assert breakers.due("failing") == ["a"]


@pytest.mark.parametrize("leave", [Breakers.forget, Breakers.answered])
def test_an_instance_that_left_is_never_due(
    breakers: Breakers, clock: list[float], leave: Callable[[Breakers, str], object]
) -> None:
    fail(breakers, 3)
    breakers.unreachable("b", "Nobody is there.")
    leave(breakers, "a")
    clock[0] += 1000
    assert breakers.due("failing") == []
    assert breakers.due("unreachable") == ["b"]


def test_an_instance_that_is_reached_again_keeps_its_failures(breakers: Breakers) -> None:
    fail(breakers, 2)
    breakers.unreachable("a", "Nobody is there.")
    assert breakers.reached("a")
    assert not breakers.open
    assert fail(breakers, 1) == [True]
    assert not breakers.reached("a")
    assert breakers.open == {"a"}
