"""The answer ends where the first stop string begins, however the stream is split."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynemo.answer.stops import StopAutomaton, StopStrings
from dynemo.errors import RequestError


def run(stops: list[str], pieces: list[str]) -> tuple[list[str], str, bool]:
    """Returns what each feed shows, what the flush adds, and whether the stream was stopped."""
    watch = StopStrings(StopAutomaton(stops))
    shown = []
    for piece in pieces:
        text, is_met = watch.feed(piece)
        shown.append(text)
        assert is_met is watch.is_met
        if is_met:
            break
    rest = watch.flush()
    return shown, rest, watch.is_met


def expected(stops: list[str], text: str) -> tuple[str, bool]:
    found = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    return (text[: min(found)], True) if found else (text, False)


def longest_hold(stops: list[str], text: str) -> int:
    """Returns how many characters at the end may still begin a stop string."""
    return max(
        (n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0
    )


@pytest.mark.parametrize(
    ("stops", "pieces", "shown", "rest", "is_met"),
    [
        pytest.param([], ["any", "thing"], ["any", "thing"], "", False, id="none"),
        pytest.param(["END"], ["ab", "cEND", "d"], ["ab", "c"], "", True, id="inside-a-piece"),
        pytest.param(["END"], ["aE", "N", "Dz"], ["a", "", ""], "", True, id="across-pieces"),
        pytest.param(["END"], ["aEN", "x"], ["a", "ENx"], "", False, id="given-back"),
        pytest.param(["END"], ["aEE", "ND"], ["aE", ""], "", True, id="restarts"),
        pytest.param(["END"], ["aEN"], ["a"], "EN", False, id="ends-while-held"),
        pytest.param(["abcd", "bc"], ["abc", "d"], ["", ""], "", True, id="earlier-one-wins"),
        pytest.param(["abcd", "bc"], ["abc", "x"], ["", "a"], "", True, id="earlier-one-fails"),
        pytest.param(["abcd", "bc"], ["abc"], [""], "a", True, id="earlier-one-never-comes"),
        pytest.param(["ab", "abc"], ["ab", "c"], [""], "", True, id="shorter-of-two"),
        pytest.param(["\n\n"], ["a\n", "b\n", "\nc"], ["a", "\nb", ""], "", True, id="newlines"),
        pytest.param(["aab"], ["aaa", "ab"], ["a", "a"], "", True, id="self-overlapping"),
        pytest.param(["é", "👩‍👩"], ["x👩", "‍", "👩"], ["x", "", ""], "", True, id="unicode"),
        pytest.param(["x"], ["", "a", ""], ["", "a", ""], "", False, id="empty-pieces"),
    ],
)
def test_stops(
    stops: list[str], pieces: list[str], shown: list[str], rest: str, is_met: bool
) -> None:
    assert run(stops, pieces) == (shown, rest, is_met)


def test_text_after_a_stop_is_dropped() -> None:
    watch = StopStrings(StopAutomaton(["."]))
    assert watch.feed("a.b") == ("a", True)
    assert watch.feed("c") == ("", True)
    assert watch.flush() == ""


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(RequestError, match="cannot be empty") as caught:
        StopAutomaton(["a", ""])
    assert caught.value.param == "stop"


letters = st.text("ab", min_size=1, max_size=5)


@given(stops=st.lists(letters, max_size=4), pieces=st.lists(st.text("abc", max_size=6)))
def test_any_cut_gives_the_text_before_the_first_stop(stops: list[str], pieces: list[str]) -> None:
    shown, rest, is_met = run(stops, pieces)
    assert ("".join(shown) + rest, is_met) == expected(stops, "".join(pieces))


@given(stops=st.lists(letters, min_size=1, max_size=4), pieces=st.lists(st.text("abc", max_size=6)))
def test_no_more_is_held_than_may_begin_a_stop(stops: list[str], pieces: list[str]) -> None:
    watch = StopStrings(StopAutomaton(stops))
    fed = shown = ""
    for piece in pieces:
        text, is_met = watch.feed(piece)
        fed, shown = fed + piece, shown + text
        if is_met:
            return
        assert len(fed) - len(shown) == longest_hold(stops, fed)


def test_a_long_repetitive_stop_stays_linear() -> None:
    stop = "a" * 20_000 + "b"
    started = time.perf_counter()
    watch = StopStrings(StopAutomaton([stop]))
    for _ in range(2_000):
        watch.feed("a" * 50)
    assert watch.feed("b") == ("", True)
    assert time.perf_counter() - started < 5  # quadratic time would be minutes


@pytest.mark.parametrize("stop", ["^", "]", "-", "\\", "[a", "a-z", "\n"])
def test_stop_strings_are_no_patterns(stop: str) -> None:
    assert run([stop, "unused"], ["bq", stop]) == (["bq", ""], "", True)


def test_one_automaton_serves_many_streams() -> None:
    automaton = StopAutomaton(["END"])
    one, other = StopStrings(automaton), StopStrings(automaton)
    assert one.feed("aEN") == ("a", False)
    assert other.feed("D") == ("D", False)
    assert one.feed("D") == ("", True)
    assert not other.is_met


@pytest.mark.parametrize(
    "stops",
    [
        ["a" * length + "b" for length in range(240, 256)],
        ["a" * length + chr(200 + length) for length in range(16)],
        [chr(1000 + index) + "a" * 254 + "b" for index in range(16)],
    ],
)
def test_hostile_stop_strings_stay_linear(stops: list[str]) -> None:
    """A hundred thousand characters take some 0.1 s; 16 comparisons of 256 each would take 40."""
    started = time.perf_counter()
    watch = StopStrings(StopAutomaton(stops))
    shown = [watch.feed("a" * 4)[0] for _ in range(25_000)] + [watch.flush()]
    assert "".join(shown) == "a" * 100_000
    assert time.perf_counter() - started < 4
