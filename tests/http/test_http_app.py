"""The ASGI app, called in this process without a server."""

import asyncio
import logging

import pytest

from dynemo.errors import (
    ContextLengthExceeded,
    DynemoError,
    EngineError,
    EngineLost,
    RequestError,
    Unavailable,
)
from dynemo.messages.answer import Finish, TextPiece
from support.asgi_client import CHAT, Caller, ask, call, chat_body, make_app
from support.fake_pipeline import PROMPT_TOKENS, FakePipeline, Script, say
from support.pieces import ended
from support.waiting import until


def test_a_whole_answer() -> None:
    pipeline = FakePipeline()
    reply = ask(make_app(pipeline), max_tokens=2049)
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert int(reply.headers["content-length"]) == len(reply.body)
    assert reply.headers["x-request-id"]
    assert reply.json["object"] == "chat.completion"
    assert reply.json["id"] == f"chatcmpl-{1:032x}"
    assert reply.json["choices"][0]["message"]["content"] == "Pretoria"
    assert reply.json["usage"] == {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": 3,
        "total_tokens": PROMPT_TOKENS + 3,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    assert pipeline.asks[0].max_tokens == 2049
    assert pipeline.closed == ["finished"]


def test_a_stream() -> None:
    reply = ask(make_app(FakePipeline()), stream=True, stream_options={"include_usage": True})
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["cache-control"] == "no-cache"
    *chunks, usage, done = reply.events
    assert done == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 3
    assert [c["choices"][0]["delta"] for c in chunks] == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "Pre"},
        {"content": "toria"},
        {},
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_choices_run_side_by_side() -> None:
    script: Script = [
        TextPiece(1, "b", 1),
        TextPiece(0, "a", 1),
        ended(1, "", 1, Finish("length", 7, 2)),
        ended(0, "A", 1, Finish("stop", 7, 2)),
    ]
    app = make_app(FakePipeline(script))
    choices = ask(app, n=2).json["choices"]
    assert [(c["message"]["content"], c["finish_reason"]) for c in choices] == [
        ("aA", "stop"),
        ("b", "length"),
    ]
    events = ask(app, n=2, stream=True).events[:-1]
    seen = [(e["choices"][0]["index"], e["choices"][0]["delta"].get("content")) for e in events]
    assert seen == [(0, ""), (1, ""), (1, "b"), (0, "a"), (1, None), (0, "A"), (0, None)]


def test_the_headers_wait_for_the_first_piece() -> None:
    async def scenario() -> None:
        pipeline = FakePipeline([0.05, *say("a")])
        caller = Caller(make_app(pipeline), "POST", CHAT, chat_body(stream=True))
        task = asyncio.create_task(caller.run())
        await until(lambda: pipeline.running)
        assert caller.reply.status == 0
        assert (await task).status == 200

    asyncio.run(scenario())


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Unavailable("Busy.", retry_after=7), 503, "unavailable"),
        (EngineError("It failed."), 500, "engine_error"),
        (EngineLost("It ended."), 502, "engine_lost"),
    ],
)
def test_an_error_before_the_first_piece_has_its_status(
    error: DynemoError, status: int, code: str, stream: bool
) -> None:
    reply = ask(make_app(FakePipeline([error])), stream=stream)
    assert reply.status == status
    assert reply.json["error"] == {
        "message": str(error),
        "type": "server_error",
        "param": None,
        "code": code,
    }
    assert reply.headers.get("retry-after") == ("7" if status == 503 else None)


def test_an_error_in_a_stream_is_its_last_event() -> None:
    pipeline = FakePipeline([TextPiece(0, "a", 1), EngineLost("It ended.")])
    reply = ask(make_app(pipeline), stream=True)
    assert (reply.status, reply.is_complete) == (200, True)
    assert reply.events[-1]["error"]["code"] == "engine_lost"
    assert pipeline.closed == ["broken"]
    assert ask(make_app(pipeline)).status == 502


def test_a_stream_without_its_end_is_broken() -> None:
    app = make_app(FakePipeline([TextPiece(0, "a", 1)]))
    assert ask(app, stream=True).events[-1]["error"]["code"] == "engine_error"
    assert ask(app).status == 500


def test_a_fault_of_ours_tells_the_client_nothing(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = FakePipeline()
    pipeline.refusal = KeyError("secret")
    reply = ask(make_app(pipeline))
    assert reply.status == 500
    assert reply.json["error"]["code"] == "internal_error"
    assert "secret" not in reply.body.decode()
    assert "secret" in caplog.text


def test_too_long_a_prompt() -> None:
    pipeline = FakePipeline()
    pipeline.refusal = ContextLengthExceeded("Too long: 9000 of 4096.", param="turns")
    error = ask(make_app(pipeline)).json["error"]
    assert error["code"] == "context_length_exceeded"
    assert error["param"] == "messages"
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_of_the_engine_names_the_field_of_the_body(stream: bool) -> None:
    error = RequestError("The regex is wrong.", param="guide")
    app = make_app(FakePipeline([error]))
    reply = ask(app, stream=stream, structured_outputs={"regex": "("})
    assert (reply.status, reply.json["error"]["param"]) == (400, "structured_outputs.regex")


def test_an_unknown_field_keeps_its_name() -> None:
    reply = ask(make_app(FakePipeline()), turns=1)
    assert (reply.status, reply.json["error"]["param"]) == (400, "turns")


def test_requests_that_are_wrong() -> None:
    app = make_app(FakePipeline())
    reply = ask(app, messages=[])
    assert (reply.status, reply.json["error"]["param"]) == (400, "messages")
    reply = ask(app, temperature=3)
    assert (reply.status, reply.json["error"]["param"]) == (400, "temperature")
    reply = ask(app, audio={"voice": "x"})
    assert reply.json["error"]["code"] == "unsupported_parameter"
    reply = ask(app, model="gpt-9")
    assert reply.status == 404
    assert reply.json["error"] == {
        "message": "The model `gpt-9` does not exist or you do not have access to it.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


def test_any_content_type_and_a_body_in_parts() -> None:
    body = chat_body()
    form = {"content-type": "application/x-www-form-urlencoded"}
    app = make_app(FakePipeline())
    reply = asyncio.run(call(app, "POST", CHAT, [body[:9], b"", body[9:]], form))
    assert reply.status == 200


@pytest.mark.parametrize("declared", [True, False])
def test_too_large_a_body(declared: bool) -> None:
    app = make_app(FakePipeline(), body=100)
    headers = {"content-length": "101"} if declared else {}
    caller = Caller(app, "POST", CHAT, [b"x" * 60, b"x" * 41, b"rest"], headers)
    reply = asyncio.run(caller.run())
    assert reply.status == 413
    assert reply.json["error"]["code"] == "request_too_large"
    assert reply.headers["connection"] == "close"
    assert reply.is_complete


def test_a_body_that_is_too_large_is_refused_before_100_continue() -> None:
    headers = {"content-length": "101", "expect": "100-continue"}

    async def scenario() -> None:
        caller = Caller(make_app(FakePipeline(), body=100), "POST", CHAT, b"", headers)
        caller._parts.clear()
        async with asyncio.timeout(0.5):
            assert (await caller.run()).status == 413

    asyncio.run(scenario())


def test_a_body_that_stops_arriving() -> None:
    app = make_app(FakePipeline(), stall=0.05)

    async def scenario() -> None:
        caller = Caller(app, "POST", CHAT)
        caller._parts.clear()
        assert (await caller.run()).status == 408

    asyncio.run(scenario())


def test_models() -> None:
    app = make_app(FakePipeline())
    models = asyncio.run(call(app, "GET", "/v1/models")).json
    assert models["object"] == "list"
    assert [m["id"] for m in models["data"]] == ["demo", "org/other"]
    model = asyncio.run(call(app, "GET", "/v1/models/org/other")).json
    assert model == models["data"][1]
    assert model["object"] == "model"
    assert model["created"] == 1_700_000_000
    reply = asyncio.run(call(app, "GET", "/v1/models/nope"))
    assert (reply.status, reply.json["error"]["code"]) == (404, "model_not_found")


def test_health() -> None:
    pipeline = FakePipeline()
    app = make_app(pipeline)
    reply = asyncio.run(call(app, "GET", "/health"))
    assert (reply.status, reply.json["status"]) == (200, "ok")
    (instance,) = reply.json["models"][0]["instances"]
    assert instance["engine"] == "fake"
    assert (instance["running"], instance["waiting"], instance["kv_use"]) == (1, 2, 0.5)
    pipeline.now = pipeline.backend.trouble = "loading"
    pipeline.backend.instance = None
    reply = asyncio.run(call(app, "GET", "/health"))
    assert (reply.status, reply.json["reason"]) == (503, "loading")
    assert reply.json["loading_seconds"] >= 0
    assert reply.json["models"][0]["instances"] == []
    app.drain()
    assert asyncio.run(call(app, "GET", "/health")).json["reason"] == "draining"
    assert asyncio.run(call(app, "GET", "/live")).status == 200
    assert ask(app).status == 503


def test_paths_and_methods() -> None:
    app = make_app(FakePipeline())
    reply = asyncio.run(call(app, "GET", "/v1/nothing"))
    assert reply.status == 404
    assert reply.json["error"]["message"] == "Invalid URL (GET /v1/nothing)"
    assert asyncio.run(call(app, "GET", "/v1/models/")).status == 404
    reply = asyncio.run(call(app, "GET", CHAT))
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    reply = asyncio.run(call(app, "HEAD", "/health"))
    assert (reply.status, reply.body) == (200, b"")
    assert int(reply.headers["content-length"]) > 0


def test_the_page() -> None:
    pipeline = FakePipeline()
    pipeline.served["<b>{{rows}}"] = pipeline.served["demo"]
    app = make_app(pipeline)
    reply = asyncio.run(call(app, "GET", "/", headers={"host": "localhost:8080"}))
    page = reply.body.decode()
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert "http://localhost:8080/v1/chat/completions" in page
    assert "fake 1.2 on cpu" in page
    assert "{{" not in page
    evil = asyncio.run(call(app, "GET", "/", headers={"host": '"><script>alert(1)</script>'}))
    assert (evil.status, evil.headers["content-type"]) == (400, "application/json")


def test_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dynemo.http")
    reply = ask(make_app(FakePipeline()), stream=True)
    (line,) = caplog.records
    said = line.__dict__
    assert said["id"] == f"chatcmpl-{1:032x}"
    assert said["request_id"] == reply.headers["x-request-id"]
    assert (said["model"], said["status"]) == ("demo", 200)
    assert (said["prompt_tokens"], said["completion_tokens"]) == (PROMPT_TOKENS, 3)
    assert said["finish"] == ["stop"]
    assert 0 <= said["ttft_ms"] <= said["duration_ms"]


def test_lifespan_and_websockets() -> None:
    app = make_app(FakePipeline())

    async def scenario() -> list[object]:
        events = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
        sent: list[object] = []

        async def receive() -> dict[str, str]:
            return next(events)

        async def send(event: object) -> None:
            sent.append(event)

        await app({"type": "lifespan"}, receive, send)
        await app({"type": "websocket"}, receive, send)
        return sent

    assert asyncio.run(scenario()) == [
        {"type": "lifespan.startup.complete"},
        {"type": "lifespan.shutdown.complete"},
        {"type": "websocket.close", "code": 1000},
    ]
