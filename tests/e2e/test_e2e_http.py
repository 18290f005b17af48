"""`in=http` with the demo model: the official client, disconnects, and all ways to stop."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from support.command import Server, children, is_alive, serving
from support.waiting import wait_until

QUESTION: Any = [{"role": "user", "content": "What is the capital of South Africa?"}]
ANSWER = "The capital of South Africa is Pretoria."
ENDLESS: Any = {"model": "demo", "messages": QUESTION, "extra_body": {"ignore_eos": True}}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.api, api_key="none", max_retries=0) as made:
        yield made


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as answer:
        body: bytes = answer.read()
    return body


def _busy(server: Server) -> float:
    """Returns how many sequences the engine runs and queues, by its own report."""
    lines = _get(f"{server.url}/metrics").decode().splitlines()
    names = ("dynemo_engine_running{", "dynemo_engine_waiting{")
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(names))


SCHEMA: Any = {
    "type": "object",
    "properties": {"capital": {"type": "string"}, "letters": {"enum": [4, 8]}},
    "required": ["capital", "letters"],
    "additionalProperties": False,
}


def _schema(schema: Any) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "city", "schema": schema}}


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_fits_a_schema(client: OpenAI, stream: bool) -> None:
    asked: Any = {"model": "demo", "messages": QUESTION, "response_format": _schema(SCHEMA)}
    if stream:
        with client.chat.completions.create(**asked, stream=True) as chunks:
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    else:
        text = client.chat.completions.create(**asked).choices[0].message.content or ""
    said = json.loads(text)
    assert said.keys() == {"capital", "letters"}
    assert said["letters"] in (4, 8)


def test_json_mode(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="demo", messages=QUESTION, response_format={"type": "json_object"}
    )
    assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


class City(BaseModel):
    capital: str
    letters: Literal[4, 8]


def test_the_client_parses_an_answer(client: OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="demo", messages=QUESTION, response_format=City, max_tokens=400
    )
    choice = answer.choices[0]
    assert isinstance(choice.message.parsed, City)
    assert (choice.message.content or "").startswith('{"capital":"')


@pytest.mark.parametrize(
    "fields",
    [
        {"guided_json": SCHEMA},
        {"structured_outputs": {"json": SCHEMA}},
        {"guided_regex": "[a-c]{3}"},
        {"guided_choice": ["Paris", "Lima"]},
        {"guided_grammar": 'root ::= "a" [0-9]'},
        {"guided_grammar": 'start: "a" /[0-9]/'},
    ],
)
def test_the_fields_of_other_servers(client: OpenAI, fields: dict[str, Any]) -> None:
    answer = client.chat.completions.create(
        model="demo", messages=QUESTION, extra_body=fields, max_tokens=100
    )
    text = answer.choices[0].message.content or ""
    assert answer.choices[0].finish_reason == "stop"
    match fields:
        case {"guided_regex": pattern}:
            assert re.fullmatch(pattern, text)
        case {"guided_choice": choices}:
            assert text in choices
        case {"guided_grammar": _}:
            assert re.fullmatch("a[0-9]", text)
        case _:
            assert text == json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"guided_regex": "("}, "guided_regex"),
        ({"structured_outputs": {"choice": ["x" * 20_000]}}, "structured_outputs.choice"),
        ({"guided_grammar": "start: ("}, "guided_grammar"),
        ({"structural_tag": {"structures": [], "triggers": []}}, "structural_tag"),
    ],
)
def test_a_refused_guide_names_its_field(
    client: OpenAI, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="demo", messages=QUESTION, extra_body=fields)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "objekt"}, "Invalid type: objekt"),
        ({"type": "string", "format": "poem"}, "Unknown format: poem"),
        ({"allOf": [{"type": "string"}, {"type": "null"}]}, "incompatible types"),
    ],
)
def test_a_schema_that_cannot_be_followed_is_refused(
    client: OpenAI, schema: Any, reason: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=reason) as caught:
        client.chat.completions.create(
            model="demo", messages=QUESTION, response_format=_schema(schema), stream=True
        )
    assert caught.value.param == "response_format"


def test_the_readme_s_curl(server: Server) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    [line] = [line.strip() for line in readme.splitlines() if line.strip().startswith("$ curl -d")]
    command = line.removeprefix("$ ").replace("http://localhost:8080", server.url)
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=10, check=True
    )
    [choice] = json.loads(done.stdout)["choices"]
    assert choice["message"]["content"] == ANSWER
    assert choice["finish_reason"] == "stop"


def test_the_official_client_streaming_and_not(client: OpenAI) -> None:
    whole = client.chat.completions.create(model="demo", messages=QUESTION, temperature=0)
    assert whole.choices[0].message.content == ANSWER
    assert whole.usage is not None
    chunks = list(
        client.chat.completions.create(
            model="demo",
            messages=QUESTION,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == ANSWER
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (
        whole.usage.prompt_tokens,
        whole.usage.completion_tokens,
    )


def test_tokens_come_as_they_are_made(demo_folder: Path) -> None:
    with (
        serving("out=echo", demo_folder, DYNEMO_TOKEN_ECHO_DELAY_MS="50") as echo,
        OpenAI(base_url=echo.api, api_key="none", max_retries=0) as client,
    ):
        model = client.models.list().data[0].id
        stream = client.chat.completions.create(
            model=model, messages=QUESTION, max_tokens=12, stream=True
        )
        times = [time.monotonic() for chunk in stream if chunk.choices[0].delta.content]
        assert len(times) >= 4
        assert times[-1] - times[0] > 0.1


def test_the_official_client_asynchronous(server: Server) -> None:
    async def ask(client: AsyncOpenAI) -> str:
        stream = await client.chat.completions.create(
            model="demo", messages=QUESTION, temperature=0, stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def body() -> list[str]:
        async with AsyncOpenAI(base_url=server.api, api_key="none") as client:
            return await asyncio.gather(*(ask(client) for _ in range(12)))

    assert asyncio.run(body()) == [ANSWER] * 12


def test_models_are_listed_and_shown(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["demo"]
    assert client.models.retrieve("demo").id == "demo"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_stops_budgets_and_choices(client: OpenAI) -> None:
    create = client.chat.completions.create
    cut = create(model="demo", messages=QUESTION, temperature=0, stop=["th Afr", "zzz"])
    assert cut.choices[0].message.content == "The capital of Sou"
    assert cut.choices[0].finish_reason == "stop"
    short = create(model="demo", messages=QUESTION, temperature=0, max_tokens=2)
    assert short.choices[0].finish_reason == "length"
    assert short.usage is not None
    assert short.usage.completion_tokens == 2
    three = create(model="demo", messages=QUESTION, temperature=0, n=3)
    assert [c.index for c in three.choices] == [0, 1, 2]
    assert {c.message.content for c in three.choices} == {ANSWER}
    one = create(model="demo", messages=QUESTION, temperature=2, seed=7, max_tokens=20)
    two = create(model="demo", messages=QUESTION, temperature=2, seed=7, max_tokens=20)
    assert one.choices[0].message.content == two.choices[0].message.content


def test_client_errors(client: OpenAI) -> None:
    create: Any = client.chat.completions.create
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        create(model="other", messages=QUESTION)
    for wrong, param in (
        ({"messages": []}, "messages"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"extra_body": {"best_of": 2}}, "best_of"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            create(**{"model": "demo", "messages": QUESTION, **wrong})
        assert caught.value.param == param
    long: Any = [{"role": "user", "content": "word " * 5000}]
    with pytest.raises(openai.BadRequestError, match=r"4096 tokens.* \d+ tokens") as caught:
        create(model="demo", messages=long)
    assert caught.value.code == "context_length_exceeded"


def _send_endless(server: Server, *, stream: bool) -> socket.socket:
    body = {"model": "demo", "messages": QUESTION, "ignore_eos": True, "stream": stream}
    data = json.dumps(body).encode()
    host, port = server.url.removeprefix("http://").split(":")
    sock = socket.create_connection((host, int(port)))
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
    sock.sendall(f"{head}{len(data)}\r\n\r\n".encode() + data)
    return sock


@pytest.mark.parametrize("stream", [True, False])
def test_ten_clients_that_leave_free_the_engine(
    server: Server, client: OpenAI, stream: bool
) -> None:
    socks = [_send_endless(server, stream=stream) for _ in range(10)]
    wait_until(lambda: _busy(server) >= 8)
    if stream:
        assert socks[0].recv(100).startswith(b"HTTP/1.1 200 OK")
    for sock in socks:
        sock.close()
    wait_until(lambda: _busy(server) == 0, 8)
    whole = client.chat.completions.create(model="demo", messages=QUESTION, temperature=0)
    assert whole.choices[0].message.content == ANSWER


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_a_signal_a_short_answer_finishes_and_no_process_stays(
    number: int, temporary: Path
) -> None:
    with serving() as running:
        hosts = running.host_pids()
        assert hosts
        with OpenAI(base_url=running.api, api_key="none", max_retries=0) as client:
            stream = client.chat.completions.create(
                model="demo",
                messages=[{"role": "user", "content": "Count to 30"}],
                temperature=0,
                stream=True,
            )
            parts = [next(iter(stream)).choices[0].delta.content or ""]
            for pid in (*hosts, running.process.pid):  # a service manager signals all processes
                os.kill(pid, number)
            parts += [chunk.choices[0].delta.content or "" for chunk in stream]
        assert "".join(parts).endswith("29, 30")
        assert running.process.wait(10) == 0
        assert not any(map(is_alive, hosts))
        port = int(running.url.rsplit(":", 1)[1])
        socket.create_server(("127.0.0.1", port)).close()
    assert list(temporary.glob("dynemo-*")) == []


def test_a_stream_longer_than_the_grace_is_cut_with_an_error() -> None:
    with serving("--grace", "0.3") as running:
        with OpenAI(base_url=running.api, api_key="none", max_retries=0) as client:
            stream = client.chat.completions.create(
                **{**ENDLESS, "extra_body": {"ignore_eos": True, "min_p": 0.0}}, stream=True
            )
            next(iter(stream))
            started = time.monotonic()
            running.process.send_signal(signal.SIGTERM)
            with pytest.raises(openai.APIError):
                for _ in stream:
                    pass
        assert running.process.wait(10) == 0
        assert time.monotonic() - started < 6


def test_a_killed_runner_takes_its_engine_along(temporary: Path) -> None:
    with serving() as running:
        assert list(temporary.glob("dynemo-*"))
        hosts = running.host_pids()
        running.process.kill()
        running.process.wait()
        wait_until(lambda: not any(map(is_alive, hosts)), 8)
    wait_until(lambda: not list(temporary.glob("dynemo-*")))


def test_an_answer_goes_on_after_its_engine_was_killed() -> None:
    with (
        serving() as running,
        OpenAI(base_url=running.api, api_key="none", max_retries=0) as client,
    ):
        [host] = running.host_pids()
        stream = client.chat.completions.create(**ENDLESS, stream=True)
        next(iter(stream))
        os.kill(host, signal.SIGKILL)
        *_, last = stream
        assert last.choices[0].finish_reason == "length"
        wait_until(lambda: children(running.process.pid) not in ([], [host]))
        wait_until(lambda: _is_healthy(running))
        whole = client.chat.completions.create(model="demo", messages=QUESTION, temperature=0)
        assert whole.choices[0].message.content == ANSWER
        assert any("SIGKILL" in line for line in running.lines)


def _is_healthy(server: Server) -> bool:
    try:
        return bool(_get(f"{server.url}/health"))
    except urllib.error.HTTPError as error:
        error.close()
        return False


def test_an_engine_that_cannot_start_ends_the_server_with_its_reason(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match='Unknown llama_cpp option "--nope"'),
        serving("--", "--nope"),
    ):
        pass
