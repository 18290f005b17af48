"""The queues of two ingresses in front of one pool of small workers."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dynemo.limits import QUEUE_SECONDS
from support.dyn_fleet import Fleet, fleet
from support.from_address import Received, Sender

CHAT = "/v1/chat/completions"
_SLOTS = 2


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Fleet]:
    flags = ["--discovery", f"file:{tmp_path}", "--request-plane", "tcp"]
    with fleet(flags) as started:
        yield started


def body(tokens: int, **fields: Any) -> dict[str, Any]:
    content = "word " * tokens
    return {"messages": [{"role": "user", "content": content}], "max_tokens": tokens, **fields}


async def metric(asked: Sender, name: str) -> float:
    lines = (await asked.get("/metrics")).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}{{"))


def test_two_full_ingresses_share_the_workers(pool: Fleet) -> None:
    for _ in range(2):
        pool.start("--", "--slots", str(_SLOTS), delay_ms=5)
    one, other = (pool.ingress("--max-queue", "100", workers=2) for _ in range(2))

    async def scenario() -> None:
        ends: dict[str, list[float]] = {"one": [], "other": []}
        first, second = Sender(one.url, "127.0.0.2"), Sender(other.url, "127.0.0.3")

        async def ask(name: str, sender: Sender) -> Received:
            reply = await sender.post(CHAT, body(50))
            ends[name].append(time.monotonic())
            return reply

        greedy = [asyncio.create_task(ask("one", first)) for _ in range(30)]
        await asyncio.sleep(0.5)  # the first ingress has filled the workers by now
        late = [asyncio.create_task(ask("other", second)) for _ in range(15)]
        most_waiting = 0.0
        while not all(task.done() for task in late):
            waiting = await metric(first, "dynemo_engine_waiting")
            most_waiting = max(most_waiting, waiting)
            await asyncio.sleep(0.1)
        replies = await asyncio.gather(*greedy, *late)
        assert {reply.status for reply in replies} == {200}
        # Each worker takes 8 answers at most, of which it computes 2.
        assert most_waiting <= 2 * (8 - _SLOTS)
        # The second ingress does not wait until the first one is done.
        assert sorted(ends["other"])[7] < max(ends["one"])

    asyncio.run(scenario())


def test_an_ingress_bounds_its_queue_by_its_workers(pool: Fleet) -> None:
    pool.start("--", "--slots", str(_SLOTS), delay_ms=5)
    ingress = pool.ingress(workers=1)

    async def scenario() -> None:
        greedy, polite = Sender(ingress.url, "127.0.0.2"), Sender(ingress.url, "127.0.0.3")
        began = time.monotonic()
        tasks = [asyncio.create_task(greedy.post(CHAT, body(400))) for _ in range(3 + 6)]
        await asyncio.sleep(0.8)  # later requests are not part of the burst
        tasks += [asyncio.create_task(greedy.post(CHAT, body(4))) for _ in range(4)]
        assert (await polite.post(CHAT, body(4))).status == 200
        assert (await polite.get("/health")).status == 200
        statuses = sorted(reply.status for reply in await asyncio.gather(*tasks))
        assert statuses == [200] * (3 + 6) + [429] * 4
        assert time.monotonic() - began < QUEUE_SECONDS / 10

    asyncio.run(scenario())


def test_without_a_worker_it_is_a_503_at_once(pool: Fleet) -> None:
    worker = pool.start("--", "--slots", str(_SLOTS), delay_ms=5)
    ingress = pool.ingress(workers=1)
    worker.close()

    async def scenario() -> None:
        asked = Sender(ingress.url)
        began = time.monotonic()
        reply = await asked.post(CHAT, body(4))
        assert reply.status == 503
        assert time.monotonic() - began < 5

    asyncio.run(scenario())
