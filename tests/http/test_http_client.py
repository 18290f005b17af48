"""The official OpenAI client with a real server."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest
import uvloop

from dynemo.errors import ContextLengthExceeded, EngineLost, Unavailable
from dynemo.messages.answer import TextPiece
from support.asgi_client import make_app, run, running
from support.fake_pipeline import PROMPT_TOKENS, FakePipeline, Script, say
from support.waiting import until

MESSAGES: Any = [{"role": "user", "content": "What is the capital of South Africa?"}]
LONG: Script = [x for _ in range(10_000) for x in (TextPiece(0, "tick ", 1), 0.002)]


@contextmanager
def served(pipeline: FakePipeline) -> Iterator[str]:
    """Runs the server in another thread, because the client blocks."""
    ready = threading.Event()
    place: dict[str, Any] = {}

    async def scenario() -> None:
        async with running(make_app(pipeline)) as server:
            place["url"] = f"{server.url}/v1"
            place["stop"] = done = asyncio.Event()
            place["loop"] = asyncio.get_running_loop()
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: uvloop.run(scenario()))
    thread.start()
    assert ready.wait(5)
    try:
        yield place["url"]
    finally:
        place["loop"].call_soon_threadsafe(place["stop"].set)
        thread.join(10)


@contextmanager
def client_of(pipeline: FakePipeline) -> Iterator[openai.OpenAI]:
    with served(pipeline) as url, openai.OpenAI(base_url=url, api_key="x", max_retries=0) as client:
        yield client


def test_whole_answers_and_models() -> None:
    with client_of(FakePipeline()) as client:
        answer = client.chat.completions.create(model="demo", messages=MESSAGES, max_tokens=9)
        assert answer.choices[0].message.content == "Pretoria"
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        assert answer.usage.total_tokens == PROMPT_TOKENS + 3
        assert answer.usage.prompt_tokens_details is not None
        assert answer._request_id
        # Send the whole message object back, like the examples of multi-turn chats.
        again: Any = [*MESSAGES, answer.choices[0].message, *MESSAGES]
        client.chat.completions.create(model="demo", messages=again)
        assert [model.id for model in client.models.list()] == ["demo", "org/other"]
        assert client.models.retrieve("demo").created == 1_700_000_000
        assert client.models.retrieve("org/other").id == "org/other"
        assert len(client.chat.completions.create(model="demo", messages=MESSAGES).choices) == 1


def test_streams() -> None:
    with client_of(FakePipeline(say("Pre", "to\u2028ria", "\n\n"))) as client:
        stream = client.chat.completions.create(
            model="demo", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == "Preto\u2028ria\n\n"
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 4
        assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_the_stream_helper_gathers_the_answer() -> None:
    with (
        client_of(FakePipeline()) as client,
        client.chat.completions.stream(model="demo", messages=MESSAGES) as stream,
    ):
        stream.until_done()
        answer = stream.get_final_completion()
    assert answer.choices[0].message.content == "Pretoria"
    assert answer.choices[0].finish_reason == "stop"


def test_async_and_side_by_side() -> None:
    async def scenario() -> None:
        pipeline = FakePipeline([x for p in say(*"abcdefgh") for x in (0.005, p)])
        async with (
            running(make_app(pipeline)) as server,
            openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x") as client,
        ):

            async def one(stream: bool) -> str:
                if not stream:
                    answer = await client.chat.completions.create(model="demo", messages=MESSAGES)
                    return answer.choices[0].message.content or ""
                chunks = await client.chat.completions.create(
                    model="demo", messages=MESSAGES, stream=True
                )
                return "".join([c.choices[0].delta.content or "" async for c in chunks])

            texts = await asyncio.gather(*(one(i % 2 == 0) for i in range(20)))
            assert texts == ["abcdefgh"] * 20

    run(scenario())


def test_a_closed_stream_stops_its_generation() -> None:
    async def scenario() -> None:
        pipeline = FakePipeline(LONG)
        async with (
            running(make_app(pipeline)) as server,
            openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x") as client,
        ):
            stream = await client.chat.completions.create(
                model="demo", messages=MESSAGES, stream=True
            )
            async for _ in stream:
                break
            await stream.close()
            await until(lambda: pipeline.closed == ["cancelled"], 1)
            # On a timeout the client closes its connection.
            with pytest.raises(openai.APITimeoutError):
                await client.with_options(timeout=0.2, max_retries=0).chat.completions.create(
                    model="demo", messages=MESSAGES
                )
            await until(lambda: pipeline.closed == ["cancelled"] * 2, 1)

    run(scenario())


def _ask(client: openai.OpenAI, **fields: Any) -> Any:
    return client.chat.completions.create(**{"model": "demo", "messages": MESSAGES, **fields})


@pytest.mark.parametrize(
    ("ask", "kind", "param"),
    [
        (lambda c: _ask(c, model="nope"), openai.NotFoundError, "model"),
        (lambda c: c.models.retrieve("nope"), openai.NotFoundError, "model"),
        (lambda c: _ask(c, messages=[]), openai.BadRequestError, "messages"),
        (lambda c: _ask(c, top_logprobs=2), openai.BadRequestError, "top_logprobs"),
        (lambda c: _ask(c, extra_body={"foo": 1}), openai.BadRequestError, "foo"),
        (lambda c: _ask(c, temperature=3), openai.BadRequestError, "temperature"),
    ],
)
def test_errors_are_the_client_s_own(
    ask: Callable[[openai.OpenAI], Any], kind: type[openai.APIStatusError], param: str
) -> None:
    with client_of(FakePipeline()) as client, pytest.raises(kind) as caught:
        ask(client)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


def test_errors_of_the_engine() -> None:
    pipeline = FakePipeline([TextPiece(0, "a", 1), EngineLost("It ended.")])
    with client_of(pipeline) as client:
        with pytest.raises(openai.APIError, match=r"It ended\."):
            list(_ask(client, stream=True))
        pipeline.refusal = Unavailable("Loading.")
        with pytest.raises(openai.InternalServerError) as caught:
            _ask(client)
        assert caught.value.status_code == 503
        pipeline.refusal = ContextLengthExceeded("9000 of 4096 tokens.", param="messages")
        with pytest.raises(openai.BadRequestError) as refused:
            _ask(client)
        assert refused.value.code == "context_length_exceeded"


def test_our_own_fields_pass_as_extra_body() -> None:
    pipeline = FakePipeline()
    extra = {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "ignore_eos": True}
    with client_of(pipeline) as client:
        _ask(client, extra_body={**extra, "chat_template_kwargs": {"enable_thinking": False}})
    (asked,) = pipeline.asks
    assert {name: getattr(asked, name) for name in extra} == extra
    assert asked.chat_template_kwargs == {"enable_thinking": False}
