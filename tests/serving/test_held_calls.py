"""Calls that are held to a guide, with an engine that has a script for each step."""

import asyncio
from dataclasses import replace

import pytest

from dynemo.answer.thoughts import HeldCalls, Thinking
from dynemo.messages.answer import Finish
from dynemo.messages.request import Guide, Request, Sampling
from dynemo.serving.held_calls import hold_calls
from support.byte_tokenizer import Bytes
from support.two_steps import TwoSteps, joined

TOKENIZER = Bytes()
GUIDE = Guide("lark", 'start: "a"')
HELD = HeldCalls(("<call>", "<calls>"), GUIDE, Thinking(("<think>",), ("</think>",), False))
OPEN = replace(HELD, thinking=replace(HELD.thinking, is_open=True))
CALL = "<call>f()"


def answer(
    engine: TwoSteps, held: HeldCalls = HELD, guide: Guide | None = None
) -> tuple[str, Finish]:
    request = Request(
        id="r",
        token_ids=list(b"Q"),
        prompt="Q",
        max_tokens=100,
        sampling=Sampling(),
        stop_ids=[0],
        guide=guide,
    )
    return asyncio.run(joined(hold_calls(request, engine.generate, held, TOKENIZER), request))


@pytest.mark.parametrize("gives_text", [False, True], ids=["ids", "text"])
@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("held", "said", "kept"),
    [
        (HELD, "<call>wrong", ""),
        (HELD, "Let me see.\n<call>wrong", "Let me see.\n"),
        (HELD, "a < b, <cal, <<calls>wrong", "a < b, <cal, <"),
        (HELD, "<think>or <call>?</think>So<call>wrong", "<think>or <call>?</think>So"),
        (OPEN, "or <call>?</think><call>wrong", "or <call>?</think>"),
    ],
)
def test_a_call_is_written_under_the_guide(
    held: HeldCalls, said: str, kept: str, size: int, gives_text: bool
) -> None:
    engine = TwoSteps(said, CALL, gives_text=gives_text, size=size)
    text, finish = answer(engine, held)
    assert (text, finish.reason) == (kept + CALL, "stop")
    first, second = engine.seen
    assert (first.guide, second.guide) == (None, GUIDE)
    assert second.prompt == "Q" + kept
    assert second.token_ids == list(("Q" + kept).encode())


@pytest.mark.parametrize("gives_text", [False, True], ids=["ids", "text"])
@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("said", ["Hello.", "a <b> <cal", "<think>or <call>?", ""])
def test_an_answer_without_a_call_is_left_alone(said: str, size: int, gives_text: bool) -> None:
    engine = TwoSteps(said, CALL, gives_text=gives_text, size=size)
    text, finish = answer(engine)
    assert (text, finish.reason) == (said, "stop")
    assert len(engine.seen) == 1


def test_guided_content_is_left_alone() -> None:
    engine = TwoSteps("", '{"a": "<call>"}', gives_text=False, size=1)
    assert answer(engine, guide=Guide("json_schema", "{}"))[0] == '{"a": "<call>"}'


def test_a_guide_that_the_engine_refuses_does_not_end_the_answer() -> None:
    engine = TwoSteps("So <call>f(1)", CALL, gives_text=False, size=1, refuses=True)
    engine.rest = "<call>f(1)"
    text, finish = answer(engine)
    assert (text, finish.reason) == ("So <call>f(1)", "stop")
