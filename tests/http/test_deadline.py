"""The deadline that a client sets with `X-Request-Timeout`."""

import asyncio
from typing import Any

import pytest

from dynemo.errors import RequestError
from dynemo.http.asgi import Event
from dynemo.http.deadline import read_timeout
from support.asgi_client import CHAT, Caller, Reply, call, chat_body, make_app, run
from support.fake_pipeline import FakePipeline, say

HEADERS = {"x-request-timeout": "0.05"}


def ask(pipeline: FakePipeline, timeout: str, **fields: Any) -> Reply:
    headers = {"x-request-timeout": timeout}
    return run(call(make_app(pipeline), "POST", CHAT, chat_body(**fields), headers))


def scope(*values: str) -> dict[str, Any]:
    return {"headers": [(b"x-request-timeout", value.encode("latin-1")) for value in values]}


@pytest.mark.parametrize(
    ("given", "seconds"), [("5", 5.0), (" 0.25 ", 0.25), (".5", 0.5), ("86400", 86400.0)]
)
def test_reads_seconds(given: str, seconds: float) -> None:
    assert read_timeout(scope(given)) == seconds


def test_is_none_without_the_header() -> None:
    assert read_timeout(scope()) is None


@pytest.mark.parametrize(
    "given",
    ["", "0", "0.0", "-1", "nan", "inf", "1e3", "1_0", "0x10", "five", "86401", "9" * 5000, "5s"],
)
def test_refuses_other_values(given: str) -> None:
    with pytest.raises(RequestError, match="X-Request-Timeout takes one number") as caught:
        read_timeout(scope(given))
    assert len(str(caught.value)) < 400
    assert caught.value.param == "X-Request-Timeout"


def test_refuses_two_headers() -> None:
    with pytest.raises(RequestError, match='not "5, 6"'):
        read_timeout(scope("5", "6"))


def test_a_wrong_value_is_the_clients_mistake() -> None:
    pipeline = FakePipeline()
    reply = ask(pipeline, "soon")
    assert (reply.status, reply.json["error"]["param"]) == (400, "X-Request-Timeout")
    assert pipeline.asks == []


@pytest.mark.parametrize("stream", [True, False])
def test_before_the_first_token_it_is_a_504(stream: bool) -> None:
    pipeline = FakePipeline([60.0, *say("late")])
    reply = ask(pipeline, "0.05", stream=stream)
    assert (reply.status, reply.json["error"]["code"]) == (504, "deadline_exceeded")
    assert "longer than 0.05 s" in reply.json["error"]["message"]
    assert pipeline.closed == ["cancelled"]


def test_later_it_is_the_last_event_of_the_stream() -> None:
    pipeline = FakePipeline([*say("early")[:1], 60.0])
    reply = ask(pipeline, "0.2", stream=True)
    assert reply.status == 200
    assert reply.events[-2]["choices"][0]["delta"] == {"content": "early"}
    assert reply.events[-1]["error"]["code"] == "deadline_exceeded"
    assert pipeline.closed == ["cancelled"]


def test_it_covers_a_body_that_does_not_arrive() -> None:
    async def scenario() -> Reply:
        caller = Caller(make_app(FakePipeline()), "POST", CHAT, headers=HEADERS)
        caller.receive = never  # type: ignore[method-assign]
        return await caller.run()

    async def never() -> Event:
        await asyncio.sleep(60)
        return {}

    assert run(scenario()).status == 504


def test_an_answer_in_time_is_not_touched() -> None:
    assert ask(FakePipeline(), "5").json["choices"][0]["message"]["content"] == "Pretoria"
