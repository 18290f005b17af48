import pytest

from dynemo.spelling import visible
from dynemo.terminal.screen import clean, count, duration


def test_no_control_character_reaches_the_terminal() -> None:
    everything = "".join(map(chr, range(0x100)))
    shown = visible(everything)
    acting = [c for c in shown if ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0]
    assert acting == ["\t", "\n"]
    assert visible("\x1b[2J") == "␛[2J"
    assert visible("one\r\ntwo") == "one\ntwo"


@pytest.mark.parametrize("text", ["plain", "Grüße, 世界 👩‍👩‍👧", "a\n\tb", ""])
def test_text_stays_as_it_is(text: str) -> None:
    assert visible(text) == text
    assert clean(text) == text


def test_bytes_that_were_no_utf8_become_the_replacement_character() -> None:
    assert clean("a\udcff") == "a\ufffd"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0012, "1.2 ms"),
        (0.012, "12 ms"),
        (1.234, "1.23 s"),
        (81, "1 min 21 s"),
        (7, "7 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_counts() -> None:
    assert [count(n, "turn") for n in (0, 1, 1200)] == ["0 turns", "1 turn", "1,200 turns"]
