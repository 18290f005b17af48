"""Requests that want the whole engine, and a full queue, beside a client that asks for little.

`out=echo` computes two sequences at once. It takes 5 ms for a token, and repeats the prompt.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from support.command import Server, serving
from support.from_address import Sender
from support.waiting import wait_until

CHAT = "/v1/chat/completions"
_SLOTS = 2
_GREEDY, _OTHER, _POLITE = "127.0.0.2", "127.0.0.3", "127.0.0.4"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    arguments = ("out=echo", "--max-queue", "4", "-v", "--log-format", "json")
    options = ("--", "--slots", str(_SLOTS))
    with serving(*arguments, *options, DYNEMO_TOKEN_ECHO_DELAY_MS="5") as running:
        yield running


def body(tokens: int, **fields: Any) -> dict[str, Any]:
    """A request whose answer has so many tokens, or a few more."""
    content = "word " * tokens
    return {"messages": [{"role": "user", "content": content}], "max_tokens": tokens, **fields}


async def metric(asked: Sender, name: str) -> float:
    lines = (await asked.get("/metrics")).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}{{"))


async def reads(asked: Sender, name: str, number: float) -> None:
    """Waits until the metric has that value."""
    async with asyncio.timeout(10):
        while True:
            if await metric(asked, name) == number:
                return
            await asyncio.sleep(0.02)


async def waits(asked: Sender, number: int) -> None:
    await reads(asked, "dynemo_queue_requests", number)


async def is_idle(asked: Sender) -> None:
    await reads(asked, "dynemo_requests_in_flight", 0)
    await reads(asked, "dynemo_engine_running", 0)


async def end(*tasks: "asyncio.Task[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("stream", [False, True])
def test_a_hundred_choices_do_not_keep_others_waiting(server: Server, stream: bool) -> None:
    async def scenario() -> None:
        one, other = Sender(server.url, _GREEDY), Sender(server.url, _OTHER)
        polite = Sender(server.url, _POLITE)
        greedy = [
            asyncio.create_task(each.post(CHAT, body(100, n=128, stream=stream)))
            for each in (one, other)  # over a minute of work
        ]
        await waits(polite, 2)
        began = time.monotonic()
        for _ in range(3):
            reply = await polite.post(CHAT, body(4, stream=stream))
            assert reply.status == 200
        assert time.monotonic() - began < 20
        assert not any(task.done() for task in greedy)
        await end(*greedy)
        await is_idle(polite)

    asyncio.run(scenario())


def test_a_full_queue_refuses_in_milliseconds_but_not_another_client(server: Server) -> None:
    async def scenario() -> None:
        greedy, polite = Sender(server.url, _GREEDY), Sender(server.url, _POLITE)
        running = [asyncio.create_task(greedy.post(CHAT, body(400))) for _ in range(3 + 4)]
        await waits(polite, 4)
        began = time.monotonic()
        refused = [await greedy.post(CHAT, body(5000)) for _ in range(5)]
        assert time.monotonic() - began < 5 * 0.5
        for reply in refused:
            assert reply.status == 429
            assert reply.error_code == "overloaded"
            assert int(reply.headers["retry-after"]) >= 1
        assert (await polite.get("/health")).status == 200
        assert await metric(polite, "dynemo_requests_rejected_total") >= 5
        assert (await polite.post(CHAT, body(4))).status == 200
        assert sum(task.done() for task in running) <= 6
        assert {reply.status for reply in await asyncio.gather(*running)} == {200}

    asyncio.run(scenario())


def test_a_client_that_leaves_frees_its_place(server: Server) -> None:
    async def scenario() -> None:
        greedy, polite = Sender(server.url, _GREEDY), Sender(server.url, _POLITE)
        tasks = [asyncio.create_task(greedy.post(CHAT, body(2000))) for _ in range(3 + 4)]
        await waits(polite, 4)
        for _ in range(3):  # each time, four leave and four others come
            await end(*tasks[3:])
            await waits(polite, 0)
            tasks[3:] = [asyncio.create_task(greedy.post(CHAT, body(2000))) for _ in range(4)]
            await waits(polite, 4)
        assert (await greedy.post(CHAT, body(4))).status == 429
        await end(*tasks)
        await is_idle(polite)
        assert (await greedy.post(CHAT, body(4))).status == 200

    asyncio.run(scenario())


def test_a_deadline_ends_the_wait_and_the_work(server: Server) -> None:
    async def scenario() -> None:
        greedy, polite = Sender(server.url, _GREEDY), Sender(server.url, _POLITE)
        late = await polite.post(CHAT, body(2000), x_request_timeout="0.3")
        assert (late.status, late.error_code) == (504, "deadline_exceeded")
        await is_idle(polite)  # not the 10 s of its answer
        streamed = await polite.post(CHAT, body(2000, stream=True), x_request_timeout="0.3")
        assert streamed.status == 200
        assert streamed.error_code == "deadline_exceeded"
        tasks = [asyncio.create_task(greedy.post(CHAT, body(2000))) for _ in range(3)]
        await reads(polite, "dynemo_requests_in_flight", 3)
        queued = await greedy.post(CHAT, body(4), x_request_timeout="0.3")
        assert queued.status == 504
        assert await metric(polite, "dynemo_queue_requests") == 0
        await end(*tasks)
        await is_idle(polite)

    asyncio.run(scenario())


def test_priority_orders_the_requests_of_one_client(server: Server) -> None:
    async def scenario() -> None:
        order: list[str] = []
        greedy, polite = Sender(server.url, _GREEDY), Sender(server.url, _POLITE)

        async def ask(name: str, tokens: int, **fields: Any) -> None:
            reply = await greedy.post(CHAT, body(tokens, **fields))
            assert reply.status == 200
            order.append(name)

        running = [asyncio.create_task(ask("running", 500)) for _ in range(3)]
        await reads(polite, "dynemo_requests_in_flight", 3)
        for number, (name, priority) in enumerate(
            [("low", 5), ("normal", 0), ("high", -5), ("highest", -6)], 1
        ):
            running.append(asyncio.create_task(ask(name, 60, priority=priority)))
            await waits(polite, number)
        await asyncio.gather(*running)
        places = {name: order.index(name) for name in ("highest", "high", "normal", "low")}
        # Two run at once, so neighbours may swap.
        assert max(places["highest"], places["high"]) < places["low"]
        assert places["highest"] < places["normal"]

    asyncio.run(scenario())


@pytest.mark.parametrize("priority", ["high", 1.5, 2**31])
def test_a_priority_is_a_small_whole_number(server: Server, priority: Any) -> None:
    async def scenario() -> None:
        asked = Sender(server.url)
        reply = await asked.post(CHAT, body(4, priority=priority))
        assert reply.status == 400
        assert reply.json["error"]["param"] == "priority"

    asyncio.run(scenario())


def test_the_log_has_the_time_in_the_queue(server: Server) -> None:
    async def scenario() -> None:
        greedy = Sender(server.url, _GREEDY)
        await asyncio.gather(*(greedy.post(CHAT, body(60)) for _ in range(6)))

    def queued() -> list[float]:
        lines = [json.loads(line) for line in server.lines[before:]]
        return [line["queued_ms"] for line in lines if line.get("status") == 200]

    before = len(server.lines)
    asyncio.run(scenario())
    wait_until(lambda: len(queued()) == 6)
    assert min(queued()) == 0.0
    assert max(queued()) > 100.0
