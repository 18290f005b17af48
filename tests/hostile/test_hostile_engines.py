"""Requests that crash, block or hang an engine, among requests that do not."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import echo_with_faults
from support.command import serving
from support.dyn_fleet import Fleet, Worker, fleet
from support.dyn_streams import Answer, one, prompts, streams

pytestmark = pytest.mark.processes

ENGINE = f"out={echo_with_faults.__file__}"
NEIGHBOURS = 50
AT_ONCE = "crash at once"
LATER = "crash later " * 40


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Fleet]:
    with fleet(["--discovery", f"file:{tmp_path / 'discovery'}"]) as started:
        yield started


@pytest.fixture(scope="module")
def undisturbed() -> list[Answer]:
    with serving(ENGINE) as server:
        return streams([server], NEIGHBOURS)


def _deaths(workers: list[Worker]) -> int:
    return sum(" The engine ended " in line for worker in workers for line in worker.lines)


def _whole(answers: list[Answer]) -> list[object]:
    return [answer.whole for answer in answers]


@pytest.mark.timeout(90)
@pytest.mark.parametrize("text", [AT_ONCE, LATER], ids=["at once", "later"])
def test_a_request_that_ends_engines_ends_two_of_them(
    pool: Fleet, undisturbed: list[Answer], text: str
) -> None:
    workers = pool.workers(4, ENGINE)
    ingress = pool.ingress(workers=4)
    texts = prompts(NEIGHBOURS)
    at = NEIGHBOURS // 2
    got = streams([ingress], NEIGHBOURS + 1, texts=[*texts[:at], text, *texts[at:]])
    poison = got.pop(at)
    assert "The engine ended 2 times" in poison.error
    if text == AT_ONCE:
        assert poison.status == 422
        assert json.loads(poison.error)["error"]["code"] == "request_crashed_engine"
    assert _whole(got) == _whole(undisturbed)
    assert _deaths(workers) == 2


@pytest.mark.timeout(60)
def test_one_engine_comes_back_from_it(undisturbed: list[Answer]) -> None:
    with serving(ENGINE) as server:
        got = streams([server], NEIGHBOURS + 1, texts=[AT_ONCE, *prompts(NEIGHBOURS)])
        poison = got.pop(0)
        assert poison.status == 422
        assert _whole(got) == _whole(undisturbed)
        assert one(server.url).error == ""


@pytest.mark.timeout(60)
def test_several_such_requests_leave_their_neighbours_alone(
    pool: Fleet, undisturbed: list[Answer]
) -> None:
    workers = pool.workers(4, ENGINE)
    ingress = pool.ingress(workers=4)
    texts = prompts(NEIGHBOURS)
    got = streams([ingress], NEIGHBOURS + 3, texts=[AT_ONCE, *texts, LATER, f"{AT_ONCE}!"])
    poison = [got.pop(0), got.pop(), got.pop()]
    assert _whole(got) == _whole(undisturbed)
    assert [answer.error for answer in poison if "The engine ended" not in answer.error] == []
    assert _deaths(workers) <= 3 * 2 + 2
