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
            return number, thoughts.stage == "content"
    return 0, False


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


@pytest.mark.parametrize(
    ("is_open", "texts", "stage"),
    [
        (False, ["<tool_", "call>"], "call"),
        (False, ["\n", "<tool_call>"], "call"),
        (False, ["<b>"], "content"),
        (False, ["<think>", "a", "</think>", "\n\n", "<tool_call>"], "call"),
        (False, ["<think>", "<tool_call>", "</think>", "\n\n", "{"], "content"),
        (False, ["<think>", "a", "</think>", "\n\n", "<tool"], "lead"),
        (True, ["a</think><tool_call>{"], "call"),
        (True, ["a</think>"], "lead"),
    ],
)
def test_a_call_in_place_of_content(is_open: bool, texts: list[str], stage: str) -> None:
    thinking = Thinking(("<think>",), ("</think>",), is_open, calls=("<tool_call>",))
    thoughts = Thoughts(thinking)
    for text in texts:
        assert not thoughts.is_over
        thoughts.feed(text)
    assert thoughts.stage == stage


def test_a_call_may_end_the_thoughts() -> None:
    marks = ("<calls>", "<call>")
    thoughts = Thoughts(Thinking((), ("</t>",), True, calls=marks, ends_at_calls=True))
    for text in ("a <ca", "ll", ">"):
        assert thoughts.stage == "open"
        thoughts.feed(text)
    assert thoughts.stage == "call"


def test_the_closing_is_what_the_model_would_have_written() -> None:
    assert OPEN.closing == "\n</think>\n\n"
    assert Thinking((), ("[/THINK]",), is_open=True).closing == "[/THINK]"
