"""Requests that crash, block or hang an engine, among requests that do not."""

import json
import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support import echo_with_faults
from support.command import serving
from support.dyn_fleet import Fleet, Worker, fleet, get
from support.dyn_streams import Answer, one, prompts, streams
from support.waiting import wait_until

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


def _health(url: str) -> int:
    return get(f"{url}/health")[0]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", ["block", "hang"])
def test_an_engine_without_progress_is_unhealthy_and_comes_back(text: str) -> None:
    seen: set[int] = set()
    with serving(ENGINE, "--stall-timeout", "2") as server, ThreadPoolExecutor() as threads:
        stuck = threads.submit(one, server.url, text)
        while not stuck.done():
            seen.add(_health(server.url))
            time.sleep(0.02)
        assert "made no progress for 2 s" in " ".join(server.lines)
        assert "2 times" in stuck.result().error
        wait_until(lambda: _health(server.url) == 200)
        assert one(server.url).error == ""
        with urllib.request.urlopen(f"{server.url}/metrics", timeout=5) as answer:
            assert (
                'dynemo_engine_stalls_total{model="echo_with_faults"} 2.0' in answer.read().decode()
            )
    assert seen == {200, 503}


@pytest.mark.timeout(60)
def test_the_neighbours_of_a_request_that_blocks_its_engine_move(
    pool: Fleet, undisturbed: list[Answer]
) -> None:
    pool.workers(3, ENGINE, "--stall-timeout", "2")
    ingress = pool.ingress(workers=3)
    got = streams([ingress], NEIGHBOURS + 1, texts=["block", *prompts(NEIGHBOURS)])
    blocking = got.pop(0)
    assert blocking.status == 422
    assert _whole(got) == _whole(undisturbed)


@pytest.mark.timeout(60)
def test_a_stopped_engine_host_is_noticed(pool: Fleet, undisturbed: list[Answer]) -> None:
    workers = pool.workers(2, ENGINE)
    ingress = pool.ingress(workers=2)
    [host] = workers[0].host_pids()
    got = streams([ingress], NEIGHBOURS, (0.5, lambda: os.kill(host, signal.SIGSTOP)))
    assert _whole(got) == _whole(undisturbed)
    assert "its process is stopped" in " ".join(workers[0].lines)
    assert max(answer.longest_gap for answer in got) < 20


@pytest.mark.timeout(60)
def test_a_stream_without_tokens_moves_while_others_get_theirs(
    pool: Fleet, undisturbed: list[Answer]
) -> None:
    """The engine works, so nothing restarts it."""
    workers = pool.workers(2, ENGINE)
    ingress = pool.ingress("--token-timeout", "2", "--migration-limit", "1", workers=2)
    texts = prompts(8)
    *got, hanging = streams([ingress], 9, texts=[*texts, "hang on, please: " * 9])
    assert _whole(got) == _whole(undisturbed[:8])
    assert "has sent no token for 2 s" in hanging.error
    assert _deaths(workers) == 0
    assert any("moves to another instance" in line for line in ingress.lines)
