"""When a client disconnects, its generation stops in any phase."""

import asyncio
import json
from typing import Any

import pytest

from dynemo.messages.answer import TextPiece
from support.asgi_client import CHAT, Caller, chat_body, make_app, run, running
from support.fake_pipeline import FakePipeline, Script, say
from support.waiting import until

LONG: Script = [x for _ in range(10_000) for x in (TextPiece(0, "tick ", 1), 0.002)]
PREFILL: Script = [60.0, *say("late")]


def run_and_leave(pipeline: FakePipeline, body: bytes, *, after_text: bool) -> Caller:
    async def scenario() -> Caller:
        caller = Caller(make_app(pipeline), "POST", CHAT, body)
        task = asyncio.create_task(caller.run())
        await until(lambda: pipeline.running)
        if after_text:
            await caller.arrived.wait()
        caller.leave()
        async with asyncio.timeout(1):
            await task
        return caller

    return asyncio.run(scenario())


def test_in_the_midst_of_a_stream() -> None:
    pipeline = FakePipeline(LONG)
    caller = run_and_leave(pipeline, chat_body(stream=True), after_text=True)
    assert pipeline.closed == ["cancelled"]
    assert not caller.reply.is_complete


@pytest.mark.parametrize("stream", [True, False])
def test_in_the_prefill(stream: bool) -> None:
    pipeline = FakePipeline(PREFILL)
    caller = run_and_leave(pipeline, chat_body(stream=stream), after_text=False)
    assert pipeline.closed == ["cancelled"]
    assert caller.reply.status == 0


def test_in_the_midst_of_a_whole_answer() -> None:
    pipeline = FakePipeline(LONG)
    run_and_leave(pipeline, chat_body(), after_text=False)
    assert pipeline.closed == ["cancelled"]


def test_before_the_body_came() -> None:
    pipeline = FakePipeline()

    async def scenario() -> None:
        caller = Caller(make_app(pipeline), "POST", CHAT)
        caller._parts.clear()
        caller.leave()
        await caller.run()
        assert caller.reply.status == 0

    asyncio.run(scenario())
    assert pipeline.asks == []


def test_a_disconnect_after_the_answer_is_ignored() -> None:
    """Servers report a disconnect after each complete answer."""
    pipeline = FakePipeline()

    class Leaver(Caller):
        async def send(self, event: Any) -> None:
            await super().send(event)
            if self.reply.is_complete:
                self.leave()
                await asyncio.sleep(0.01)

    async def scenario() -> None:
        app = make_app(pipeline)
        for stream in (True, False):
            caller = Leaver(app, "POST", CHAT, chat_body(stream=stream))
            await caller.run()
            assert caller.reply.is_complete

    asyncio.run(scenario())
    assert pipeline.closed == ["finished", "finished"]


def test_it_counts_as_499() -> None:
    pipeline = FakePipeline(PREFILL)

    async def scenario() -> bytes:
        app = make_app(pipeline)
        caller = Caller(app, "POST", CHAT, chat_body())
        task = asyncio.create_task(caller.run())
        await until(lambda: pipeline.running)
        caller.leave()
        await task
        return (await Caller(app, "GET", "/metrics").run()).body

    lines = asyncio.run(scenario()).decode().splitlines()
    assert 'dynemo_requests_total{model="demo",status="499"} 1.0' in lines
    assert 'dynemo_requests_in_flight{model="demo"} 0.0' in lines
    assert 'dynemo_requests_queued{model="demo"} 0.0' in lines


@pytest.mark.parametrize("stream", [True, False])
def test_ten_leave_a_real_server(stream: bool) -> None:
    pipeline = FakePipeline(LONG)

    async def scenario() -> None:
        async with running(make_app(pipeline)) as server:
            clients = [await server.connect(chat_body(stream=stream)) for _ in range(10)]
            await until(lambda: pipeline.running == 10)
            if stream:
                for reader, _ in clients:
                    await reader.readuntil(b"tick")
            for i, (_, writer) in enumerate(clients):
                if i % 2:
                    writer.transport.abort()
                else:
                    writer.close()
            await until(lambda: pipeline.closed == ["cancelled"] * 10, 1.0)

    run(scenario())


def test_a_kept_connection_survives_its_answers() -> None:
    async def scenario() -> None:
        async with running(make_app(FakePipeline())) as server:
            reader, writer = await server.connect(chat_body())
            for i in range(3):
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                answer = json.loads(await reader.readexactly(length))
                assert answer["id"] == f"chatcmpl-{i + 1:032x}"
                body = chat_body()
                writer.write(
                    b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"
                    % (CHAT.encode(), len(body), body)
                )
            await reader.readuntil(b"\r\n\r\n")

    run(scenario())


def test_cancelling_the_app_itself_closes_the_answer() -> None:
    pipeline = FakePipeline(PREFILL)

    async def scenario() -> None:
        task = asyncio.create_task(Caller(make_app(pipeline), "POST", CHAT, chat_body()).run())
        await until(lambda: pipeline.running)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert pipeline.closed == ["cancelled"]
