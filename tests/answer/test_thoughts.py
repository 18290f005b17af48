"""Finds the end of a model's thoughts in a stream of tokens."""

import pytest

from dynemo.answer.thoughts import Thinking, Thoughts

OPEN = Thinking(("<think>",), ("</think>",), is_open=True)
CLOSED = Thinking(("<think>",), ("</think>",), is_open=False)


def ends(thinking: Thinking, texts: list[str]) -> tuple[int, bool]:
    """Returns how many tokens the thoughts take, and whether the last one is part of the answer."""
    thoughts = Thoughts(thinking)
    for number, text in enumerate(texts, 1):
        thoughts.feed(text)
        if thoughts.is_over:
            return number, thoughts.has_answer
    return 0, thoughts.has_answer


@pytest.mark.parametrize(
    ("thinking", "texts", "expected"),
    [
        (OPEN, ["I", " see", "</think>", "\n\n", "Yes"], (3, False)),
        (OPEN, list("a < b</think>Yes"), (13, False)),
        (OPEN, ["no end"], (0, False)),
        (CLOSED, ["<think>", "I", "</think>"], (3, False)),
        (CLOSED, ["\n", "<thi", "nk>I see", ".</thi", "nk>"], (5, False)),
        (CLOSED, ["Yes"], (1, True)),
        (CLOSED, ["<", "b>"], (2, True)),
        (CLOSED, ["", " ", "<thin", "g>"], (4, True)),
    ],
)
def test_the_end_of_the_thoughts(
    thinking: Thinking, texts: list[str], expected: tuple[int, bool]
) -> None:
    assert ends(thinking, texts) == expected


def test_the_closing_is_what_the_model_would_have_written() -> None:
    assert OPEN.closing == "\n</think>\n\n"
    assert Thinking((), ("[/THINK]",), is_open=True).closing == "[/THINK]"
