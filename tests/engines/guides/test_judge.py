import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dynemo import limits
from dynemo.engines.guides.judge import GuideJudge, open_judge
from dynemo.errors import GuideNotContinued, RequestError, Unavailable, UnsupportedField
from dynemo.messages.request import Guide
from support.waiting import until

pytestmark = pytest.mark.processes

TESTS = Path(__file__).parents[2]
FINE = Guide("grammar", "fine")


@pytest.fixture(autouse=True)
def _module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))


def _run(body: Callable[[GuideJudge], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with asyncio.timeout(60), open_judge("support.judging_module") as judge:
            return await body(judge)

    return asyncio.run(main())


def _judge(*texts: str) -> list[str]:
    """Judges the texts in turn. Returns each answer, or the error as text."""

    async def body(judge: GuideJudge) -> list[str]:
        answers = []
        for text in texts:
            try:
                answers.append(await judge.judge(Guide("grammar", text)))
            except RequestError as error:
                answers.append(f"{error.param}: {error}")
        return answers

    answers: list[str] = _run(body)
    return answers


def test_one_process_is_kept_and_judges_each_text_once() -> None:
    first, again, other = _judge("a", "a", "b")
    process, _, _ = first.split()
    assert first == again == f"{process} 1 grammar"
    assert other == f"{process} 2 grammar"


def test_the_kind_is_part_of_what_is_judged() -> None:
    async def body(judge: GuideJudge) -> None:
        assert (await judge.judge(Guide("grammar", "a"))).endswith("1 grammar")
        assert (await judge.judge(Guide("json_schema", "a"))).endswith("2 json_schema")

    _run(body)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("busy", "its check takes more than 0.1 s"),
        ("memory", "needs more memory or is nested more deeply"),
        ("crash", "needs more memory or is nested more deeply"),
        ("deep", "needs more memory or is nested more deeply"),
    ],
)
def test_a_guide_beyond_a_bound_ends_its_process_alone(text: str, said: str) -> None:
    before, refused, again, after = _judge("a", text, text, "b")
    assert refused == again
    assert said in refused
    assert before.split()[0] != after.split()[0]


def test_a_refusal_is_kept_and_ends_no_process() -> None:
    before, first, again, after = _judge("a", "refused", "refused", "b")
    assert first == again == "guide: The GBNF grammar cannot be followed: it is refused."
    assert before.split()[0] == after.split()[0]


def test_a_guide_that_the_build_cannot_follow_is_unsupported() -> None:
    async def body(judge: GuideJudge) -> None:
        with pytest.raises(UnsupportedField, match=re.escape("This build cannot do it.")):
            await judge.judge(Guide("grammar", "unsupported"))

    _run(body)


def test_a_process_that_has_grown_is_replaced() -> None:
    before, grown, after = _judge("a", "grown", "b")
    assert before.split()[0] == grown.split()[0] != after.split()[0]


@pytest.mark.parametrize(
    "text", ["x" * (limits.GUIDE_BYTES + 1), "é" * limits.GUIDE_BYTES, "\udc80"]
)
def test_a_text_that_is_too_long_or_no_text_starts_no_process(text: str) -> None:
    async def body(judge: GuideJudge) -> None:
        with pytest.raises(RequestError, match="cannot be followed") as caught:
            await judge.judge(Guide("grammar", text))
        assert caught.value.param == "guide"
        assert not judge._children

    _run(body)


def test_choices_share_one_judgement_even_if_some_leave() -> None:
    async def body(judge: GuideJudge) -> None:
        tasks = [asyncio.create_task(judge.judge(FINE)) for _ in range(8)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert set(map(str, answers[1:])) == {str(answers[1])}
        assert str(answers[1]).endswith(" 1 grammar")

    _run(body)


def test_the_choices_of_a_slow_guide_start_one_after_the_other() -> None:
    """The engine compiles it again for each."""

    async def body(judge: GuideJudge) -> list[float]:
        loop = asyncio.get_running_loop()

        async def start(kind: Any) -> float:
            await judge.judge(Guide(kind, "slow"))
            return loop.time()

        quick = await asyncio.gather(*(start("grammar") for _ in range(4)))
        slow = await asyncio.gather(*(start("json_schema") for _ in range(4)))
        return [max(quick) - min(quick), max(slow) - min(slow)]

    quick, slow = _run(body)
    assert slow >= 3 * 0.02 / limits.GUIDE_SHARE * 0.9
    assert quick < slow


def test_a_guide_that_takes_its_whole_time_delays_no_other_and_not_the_loop() -> None:
    async def body(judge: GuideJudge) -> None:
        await asyncio.gather(judge.judge(FINE), judge.judge(Guide("grammar", "other")))  # two start
        busy = asyncio.create_task(judge.judge(Guide("grammar", "asleep")))
        await asyncio.sleep(0)
        for n in range(5):
            await judge.judge(Guide("grammar", str(n)))
        assert not busy.done()
        busy.cancel()

    _run(body)


def test_a_judgement_that_takes_too_long_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GUIDE_WAIT_SECONDS", 0.5)

    async def body(judge: GuideJudge) -> None:
        for _ in range(2):
            with pytest.raises(Unavailable, match="could not be judged in time"):
                await judge.judge(Guide("grammar", "asleep"))
        assert not judge._children
        assert await judge.judge(FINE)

    _run(body)


def test_the_kept_judgements_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GUIDE_VERDICTS", 2)
    numbers = [answer.split()[1] for answer in _judge("a", "b", "a", "c", "a", "b")]
    assert numbers == ["1", "2", "1", "3", "1", "4"]


def test_the_end_leaves_no_process() -> None:
    async def body(judge: GuideJudge) -> list[int]:
        await asyncio.gather(judge.judge(FINE), judge.judge(Guide("grammar", "other")))
        asleep = asyncio.ensure_future(judge.judge(Guide("grammar", "asleep")))
        await until(lambda: len(judge._idle) == 1)
        asleep.cancel()
        return [child.process.pid for child in judge._children]

    processes = _run(body)
    assert len(processes) == 2
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_a_process_that_was_killed_while_idle_is_replaced() -> None:
    async def body(judge: GuideJudge) -> None:
        first = (await judge.judge(FINE)).split()[0]
        os.kill(int(first), 9)
        assert (await judge.judge(Guide("grammar", "b"))).split()[0] != first

    _run(body)


@pytest.mark.parametrize(
    ("guide", "reason"),
    [
        (Guide("lark", "a", "x"), "guides of this kind cannot be advanced"),
        (Guide("choice", '["a"]', "b"), "the answer does not fit it"),
        (Guide("choice", "[", "b"), "it is not a JSON list of texts"),
        (Guide("regex", "(" * 3000 + "a" + ")" * 3000, "a"), "nested more deeply"),
    ],
)
def test_a_guide_that_cannot_be_continued_is_not_the_fault_of_the_request(
    guide: Guide, reason: str
) -> None:
    async def body(judge: GuideJudge) -> None:
        with pytest.raises(GuideNotContinued, match=reason):
            await judge.judge(guide)

    _run(body)


def test_the_guide_of_the_rest_is_judged_as_a_guide_of_its_own() -> None:
    async def body(judge: GuideJudge) -> None:
        assert (await judge.judge(Guide("choice", '["ab","ac"]', "a"))).endswith("1 choice")
        assert (await judge.judge(Guide("regex", "ab", "a"))).endswith("2 lark")
        assert (await judge.judge(Guide("regex", "ab"))).endswith("3 regex")

    _run(body)
