"""Strangers' requests: other names for the server, pages of other sites, and tricks with heads."""

import asyncio
import json

import pytest

from dynemo.errors import UnknownModel
from dynemo.http.access.access import Access
from dynemo.http.access.keys import Keys
from dynemo.messages.ask import Ask
from dynemo.serving.pipeline import Pipeline
from support.asgi_client import CHAT, Running, chat_body, make_app, run, running
from support.fake_pipeline import FakePipeline

BODY = chat_body()
LENGTH = b"Content-Length: %d\r\n" % len(BODY)


async def send(server: Running, head: bytes, body: bytes = b"") -> tuple[int, bytes]:
    """Sends raw bytes; returns the status and the rest of the answer."""
    reader, writer = await server.open()
    writer.write(head + b"Connection: close\r\n\r\n" + body)
    async with asyncio.timeout(20):
        answer = await reader.read()
    return int(answer.split(b" ", 2)[1]), answer


def statuses(*heads: bytes, body: bytes = b"") -> list[int]:
    async def scenario() -> list[int]:
        pipeline = FakePipeline()
        async with running(make_app(pipeline)) as server:
            return [(await send(server, head, body))[0] for head in heads]

    return run(scenario())


def test_a_rebound_name_gets_no_answer() -> None:
    async def scenario() -> None:
        pipeline = FakePipeline()
        async with running(make_app(pipeline)) as server:
            port = server.port
            for name in (b"evil.example", b"evil.example:%d" % port, b"localhost.evil.example"):
                head = b"POST %b HTTP/1.1\r\nHost: %b\r\nOrigin: http://%b\r\n" % (
                    CHAT.encode(),
                    name,
                    name,
                )
                extra = b"Sec-Fetch-Site: same-origin\r\nX-Dynemo-Page: 1\r\n"
                status, answer = await send(server, head + extra + LENGTH, BODY)
                assert status == 403
                assert b"--allowed-host" in answer
                assert b"access-control" not in answer
            for path in (b"/", b"/metrics", b"/v1/models", b"/openapi.json", b"/nothing"):
                head = b"GET %b HTTP/1.1\r\nHost: evil.example\r\n" % path
                assert (await send(server, head))[0] == 403
            for path in (b"/live", b"/health"):
                head = b"GET %b HTTP/1.1\r\nHost: probe.example\r\n" % path
                assert (await send(server, head))[0] == 200
        assert pipeline.asks == []

    run(scenario())


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v1/models HTTP/1.1\r\n",
        b"GET /live HTTP/1.1\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost:\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nhOsT: evil.example\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: localhost evil.example\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: evil.example@localhost\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost : localhost\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n localhost\r\n",
        b"GET http://localhost@evil.example/v1/models HTTP/1.1\r\nHost: localhost\r\n",
        b"GET http://localhost/v1/models HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n",
        b"GET http://localhost/v1/models HTTP/1.1\r\n",
        b"CONNECT evil.example:80 HTTP/1.1\r\nHost: localhost\r\n",
    ],
)
def test_a_broken_host_is_refused(head: bytes) -> None:
    assert statuses(head) == [400]


def test_the_host_of_an_absolute_url_counts() -> None:
    ours = b"GET http://localhost:80/v1/models HTTP/1.1\r\nHost: %b\r\n"
    theirs = b"GET http://evil.example/v1/models HTTP/1.1\r\nHost: %b\r\n"
    assert statuses(ours % b"evil.example", ours % b"localhost") == [200, 200]
    assert statuses(theirs % b"localhost", theirs % b"evil.example") == [403, 403]


def test_headers_of_proxies_change_nothing() -> None:
    names = (b"X-Forwarded-Host", b"X-Host", b"X-Original-Host", b"X-HTTP-Host-Override")
    head = b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n"
    forged = [head + b"%b: localhost\r\n" % name for name in names]
    assert set(statuses(*forged, head + b"Forwarded: host=localhost\r\n")) == {403}
    other = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Host: evil.example\r\n"
    assert statuses(other) == [200]


def test_http_1_0_without_a_host_is_no_browser() -> None:
    assert statuses(b"GET /v1/models HTTP/1.0\r\n") == [200]
    assert statuses(b"GET /v1/models HTTP/1.0\r\nHost: evil.example\r\n") == [403]


@pytest.mark.parametrize(
    "kind", [b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data", b""]
)
def test_a_page_of_another_site_makes_no_simple_request(kind: bytes) -> None:
    """A browser sends these without asking first."""
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nOrigin: %b\r\n" + LENGTH
    head += b"Content-Type: %b\r\n" % kind if kind else b""
    path = CHAT.encode()
    sites = (b"https://evil.example", b"null", b"http://localhost.evil.example", b"file://")
    assert set(statuses(*(head % (path, site) for site in sites), body=BODY)) == {403}


def test_a_refused_request_does_not_poison_the_connection() -> None:
    """The body of a refused request is not read as the next request."""

    async def scenario() -> None:
        pipeline = FakePipeline()
        async with running(make_app(pipeline)) as server:
            reader, writer = await server.open()
            hidden = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
            head = b"POST %b HTTP/1.1\r\nHost: evil.example\r\nContent-Length: %d\r\n\r\n"
            writer.write(head % (CHAT.encode(), len(hidden)) + hidden)
            writer.write(b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            async with asyncio.timeout(20):
                answer = await reader.read()
            assert answer.count(b"HTTP/1.1 ") == 2
            assert answer.startswith(b"HTTP/1.1 403")
            assert answer.endswith(json.dumps({"status": "ok"}).replace(" ", "").encode())

    run(scenario())


def test_a_key_cannot_be_guessed_around() -> None:
    """Odd heads get a 401, or a 400 of the parser, and never an answer."""
    head = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n"
    tries = [
        head,
        head + b"Authorization: Bearer \r\n",
        head + b"Authorization: Bearer *\r\nX-Api-Key: *\r\n",
        head + b"Authorization: Bearer sk-righ\r\n",
        head + b"Authorization: Bearer sk-right\xff\r\n",
        head + b"Authorization: Bearer sk-right, Bearer x\r\n",
        head + b"Authorization : Bearer sk-right\r\n",
        head + b"Proxy-Authorization: Bearer sk-right\r\n",
        head + b"Cookie: key=sk-right\r\n",
        head + b"X-Api-Key: " + b"a" * 20_000 + b"\r\n",
        head + b"X-Api-Key: x\r\n" * 2_000,
        head.replace(b"/v1/models", b"/v1/models?key=sk-right"),
        head.replace(b"/v1/models", b"//v1/models"),
        head.replace(b"/v1/models", b"/live/../v1/models"),
        head.replace(b"/v1/models", b"/%2e/v1/models"),
        head.replace(b"/v1/models", b"/metrics/"),
    ]

    async def scenario() -> None:
        app = make_app(FakePipeline(), Access(keys=Keys(["sk-right"], None)))
        async with running(app) as server:
            for one in tries:
                status, answer = await send(server, one)
                assert status in (400, 401), one
                assert b"demo" not in answer
            right = head + b"Authorization: Basic eDp5\r\nX-Api-Key: sk-right\r\n"
            assert (await send(server, right))[0] == 200

    run(scenario())


def test_a_key_whose_models_are_not_served_is_told_so() -> None:
    """Without a model's name, too. A 503 would make its client try again."""
    pipeline = Pipeline(FakePipeline().served, defaults=Ask())
    for model in (None, "other", "demo"):
        with pytest.raises(UnknownModel, match=model or "other"):
            pipeline.prepare(Ask(model=model), allowed=frozenset({"other"}))
