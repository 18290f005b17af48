"""The time that an engine may have work without progress."""

from dynemo.connection.prefill import PrefillPace
from dynemo.messages.answer import Finish
from dynemo.serving.local.watchdog import StallClock


def _ticks(clock: StallClock, number: int, *, prefill: float = 0.0) -> list[bool]:
    return [
        clock.tick(1.0, is_busy=True, has_progressed=False, prefill=prefill) for _ in range(number)
    ]


def test_it_is_stuck_after_the_timeout() -> None:
    assert _ticks(StallClock(30), 30) == [False] * 29 + [True]


def test_progress_starts_the_count_anew() -> None:
    clock = StallClock(30)
    _ticks(clock, 29)
    clock.tick(1.0, is_busy=True, has_progressed=True, prefill=0)
    assert not any(_ticks(clock, 29))


def test_an_idle_engine_is_not_stuck() -> None:
    clock = StallClock(30)
    said = [clock.tick(1.0, is_busy=False, has_progressed=False, prefill=0) for _ in range(99)]
    assert not any(said)


def test_a_long_prompt_gets_ten_times_what_it_should_take() -> None:
    assert _ticks(StallClock(30), 100, prefill=10).index(True) == 99


def test_clients_that_give_up_and_come_again_do_not_hide_it() -> None:
    clock, found = StallClock(30), 0
    for _ in range(9):
        found += any(_ticks(clock, 20))
        clock.tick(1.0, is_busy=False, has_progressed=False, prefill=0)
    assert found


def test_the_pace_is_a_guess_until_an_answer_has_ended() -> None:
    pace = PrefillPace()
    assert pace.expected(82_048) == 100
    assert pace.expected(2000) == 0
    pace.answered(1, 80_000, 20.0)
    assert pace.expected(82_048) == 100
    pace.learn(1, Finish("stop", 10_000, 5))
    assert pace.expected(82_048) == 20


def test_cached_and_short_prompts_do_not_make_it_look_fast() -> None:
    pace = PrefillPace()
    for stream, size, cached in ((1, 80_000, 9_999), (2, 500, 0)):
        pace.answered(stream, size, 0.001)
        pace.learn(stream, Finish("stop", 10_000, 5, cached))
        pace.forget(stream)
    assert pace.expected(82_048) == 100


def test_the_slowest_of_the_last_answers_counts() -> None:
    pace = PrefillPace()
    for stream, seconds in enumerate([20.0, 1.0, 2.0]):
        pace.answered(stream, 80_000, seconds)
        pace.learn(stream, Finish("stop", 10_000, 5))
    assert pace.expected(82_048) == 20
    for stream in range(8):
        pace.answered(stream, 80_000, 1.0)
        pace.learn(stream, Finish("stop", 10_000, 5))
    assert pace.expected(82_048) == 1
