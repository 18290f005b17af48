"""The two steps of an answer, with an engine that has a script for each request."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest
from msgspec import structs

from dynemo.answer.thoughts import Thinking
from dynemo.messages.answer import Delta, Finish, Scores
from dynemo.messages.request import Guide, Request, Sampling
from dynemo.serving.thinking import think_first
from support.byte_tokenizer import Bytes
from support.two_steps import TwoSteps, joined

TOKENIZER = Bytes()
GUIDE = Guide("json_schema", "{}")
OPEN = Thinking(("<think>",), ("</think>",), is_open=True)
CLOSED = Thinking(("<think>",), ("</think>",), is_open=False)


def request(prompt: str = "Q", max_tokens: int = 100) -> Request:
    return Request(
        id="r",
        token_ids=ids(prompt),
        prompt=prompt,
        max_tokens=max_tokens,
        sampling=Sampling(),
        guide=GUIDE,
        stop_ids=[0],
    )


def ids(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special=False, parse_special=True)


def answer(engine: TwoSteps, asked: Request, thinking: Thinking) -> tuple[str, Finish]:
    return asyncio.run(joined(think_first(asked, engine.generate, thinking, TOKENIZER), asked))


@pytest.mark.parametrize("gives_text", [False, True], ids=["ids", "text"])
@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(
    ("thinking", "prefix"), [(OPEN, ""), (CLOSED, "<think>"), (CLOSED, "\n<think>")]
)
def test_the_guide_applies_after_the_thoughts(
    thinking: Thinking, prefix: str, size: int, gives_text: bool
) -> None:
    thoughts = prefix + "I see</think>"
    engine = TwoSteps(thoughts + "nonsense", "{}", gives_text=gives_text, size=size)
    text, finish = answer(engine, request(), thinking)
    assert text == thoughts + "{}"
    assert finish.reason == "stop"
    first, second = engine.seen
    assert (first.guide, second.guide) == (None, GUIDE)
    assert second.prompt == "Q" + thoughts
    assert second.token_ids == ids("Q" + thoughts)
    assert second.max_tokens == 100 - len(thoughts)


@pytest.mark.parametrize("size", [1, 1000])
def test_without_thoughts_the_guide_applies_to_all(size: int) -> None:
    engine = TwoSteps("<b>nonsense", "{}", gives_text=False, size=size)
    text, _ = answer(engine, request(), CLOSED)
    assert text == "{}"
    assert engine.seen[1].prompt == "Q"
    assert engine.seen[1].max_tokens == 100


@pytest.mark.parametrize("gives_text", [False, True], ids=["ids", "text"])
def test_thoughts_without_an_end_are_closed(gives_text: bool) -> None:
    engine = TwoSteps("I see", "{}", gives_text=gives_text, size=1)
    text, finish = answer(engine, request(), OPEN)
    assert text == "I see\n</think>\n\n{}"
    assert finish.reason == "stop"


@pytest.mark.parametrize("gives_text", [False, True], ids=["ids", "text"])
@pytest.mark.parametrize("budget", [0, 1, 5])
def test_a_budget_closes_the_thoughts(budget: int, gives_text: bool) -> None:
    engine = TwoSteps("I think and think", "Yes", gives_text=gives_text, size=1)
    text, _ = answer(engine, request(), replace(OPEN, budget=budget))
    assert text == "I think and think"[:budget] + "\n</think>\n\nYes"


CALLS = replace(CLOSED, calls=("<call>",))
OPEN_CALLS = replace(OPEN, calls=("<call>",))


@pytest.mark.parametrize("gives_text", [False, True], ids=["ids", "text"])
@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize(
    ("thinking", "said"),
    [
        (CALLS, "<call>f()"),
        (CALLS, "\n <call>f()"),
        (CALLS, "<think>a</think>\n<call>f()"),
        (OPEN_CALLS, "a</think><call>f()"),
    ],
)
def test_a_call_is_not_guided(thinking: Thinking, said: str, size: int, gives_text: bool) -> None:
    engine = TwoSteps(said, "{}", gives_text=gives_text, size=size)
    text, finish = answer(engine, request(), thinking)
    assert (text, finish.reason) == (said, "stop")
    assert len(engine.seen) == 1


@pytest.mark.parametrize("gives_text", [False, True], ids=["ids", "text"])
@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize(
    ("thinking", "said", "kept"),
    [
        (CALLS, "Hello", ""),
        (CALLS, " <b>", ""),
        (CALLS, "<think>a</think>\n\nHello", "<think>a</think>\n\n"),
        (OPEN_CALLS, "a</think><b>", "a</think>"),
        (OPEN_CALLS, "a</think>\n<cal", "a</think>\n"),
    ],
)
def test_content_beside_tools_is_guided(
    thinking: Thinking, said: str, kept: str, size: int, gives_text: bool
) -> None:
    engine = TwoSteps(said, "{}", gives_text=gives_text, size=size)
    text, _ = answer(engine, request(), thinking)
    assert text == kept + "{}"
    assert engine.seen[1].prompt == "Q" + kept


def test_a_call_may_come_after_thoughts_that_were_closed() -> None:
    engine = TwoSteps("hmm", "{}", gives_text=False, size=1)
    thinking = replace(OPEN_CALLS, budget=2)
    text, _ = answer(engine, request(), thinking)
    assert text == "hm\n</think>\n\n{}"
    engine = TwoSteps("<call>", "{}", gives_text=False, size=1)
    text, _ = answer(engine, request(), replace(thinking, budget=0))
    assert text == "\n</think>\n\n<call>"


def test_no_tokens_left_for_the_answer() -> None:
    engine = TwoSteps("I think and think", "{}", gives_text=False, size=3)
    text, finish = answer(engine, request(max_tokens=6), OPEN)
    assert (text, finish.reason) == ("I thin", "length")
    assert len(engine.seen) == 1


def test_closing_the_reader_closes_the_engine() -> None:
    closed = []

    async def generate(_: Request) -> AsyncGenerator[Delta, None]:
        try:
            while True:
                yield Delta(ids("a"))
                await asyncio.sleep(0)
        finally:
            closed.append(True)

    async def read_one() -> None:
        deltas = think_first(request(), generate, OPEN, TOKENIZER)
        await anext(deltas)
        await deltas.aclose()

    asyncio.run(read_one())
    assert closed == [True]


@pytest.mark.parametrize("gives_text", [False, True])
@pytest.mark.parametrize("size", [1, 3, 50])
@pytest.mark.parametrize("budget", [None, 3])
def test_each_token_keeps_its_score(gives_text: bool, size: int, budget: int | None) -> None:
    engine = TwoSteps("I see</think>no", "{}", gives_text=gives_text, size=size)
    scored: list[tuple[str, bytes]] = []
    prompts: list[list[bytes]] = []

    async def generate(asked: Request) -> AsyncGenerator[Delta, None]:
        async for delta in engine.generate(asked):
            tokens = [chr(i) for i in delta.token_ids] or delta.texts
            first = [b"prompt"] if asked.prompt_logprobs is not None and tokens else []
            yield structs.replace(delta, scores=Scores([t.encode() for t in tokens], first))
            asked = structs.replace(asked, prompt_logprobs=None)

    async def body() -> None:
        asked = structs.replace(request(), logprobs=0, prompt_logprobs=0)
        thinking = replace(OPEN, budget=budget)
        async for delta in think_first(asked, generate, thinking, TOKENIZER):
            tokens = [chr(i) for i in delta.token_ids] or delta.texts
            scores = delta.scores or Scores()
            assert len(scores.tokens) == len(tokens)
            scored.extend(zip(tokens, scores.tokens, strict=True))
            if scores.prompt:
                prompts.append(scores.prompt)

    asyncio.run(body())
    assert prompts == [[b"prompt"]]
    assert "".join(text for text, _ in scored).strip("\0").endswith("{}")
    own = [text for text, score in scored if score]
    assert all(text.encode() == score for text, score in scored if score)
    said = "".join(own).replace("</think>", "").strip("\0")
    assert said == ("I see{}" if budget is None else "I s{}")
