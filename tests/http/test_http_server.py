"""The app under uvicorn: binding, shutdown, slow readers, invalid request heads."""

import asyncio
import json
import socket
import time

import pytest

from dynemo.errors import UsageError
from dynemo.http import server as server_module
from dynemo.http.server import bind
from dynemo.messages.answer import TextPiece
from support.asgi_client import CHAT, Running, chat_body, make_app, run, running
from support.fake_pipeline import FakePipeline, Script, say
from support.waiting import until

TICKS: Script = [x for _ in range(10_000) for x in (TextPiece(0, "tick ", 1), 0.002)]


def test_the_error_for_a_port_in_use_says_what_to_do() -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(UsageError, match=rf"{port}.*--http-port"):
            bind("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "port", "says"),
    [
        ("no.such.host.invalid", 0, "no such host"),
        ("203.0.113.1", 0, "not an address of this machine"),
        ("127.0.0.1", 65536, "--http-port"),
        ("127.0.0.1", -1, "--http-port"),
        ("a" * 100, 0, "no such host"),
    ],
)
def test_what_cannot_be_bound(host: str, port: int, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        bind(host, port)


@pytest.mark.parametrize("host", ["::1", "localhost", "0.0.0.0"])
def test_what_can_be_bound(host: str) -> None:
    with bind(host, 0) as listener:
        assert listener.getsockname()[1] > 0
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert (listener.family == socket.AF_INET6) == (host == "::1")


async def _stop(server: Running) -> float:
    began = time.monotonic()
    server.stop.set()
    await server.task
    return time.monotonic() - began


def test_an_idle_server_stops_at_once() -> None:
    async def scenario() -> None:
        async with running(make_app(FakePipeline())) as server:
            reader, _ = await server.connect(chat_body())
            await reader.readuntil(b"\r\n\r\n")
            # The open connection must not delay the shutdown.
            assert await _stop(server) < 2
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", server.port)

    run(scenario())


def test_answers_may_end_within_the_grace() -> None:
    async def scenario() -> None:
        pipeline = FakePipeline([TextPiece(0, "a", 1), 0.5, *say("b")])
        async with running(make_app(pipeline)) as server:
            reader, _ = await server.connect(chat_body(stream=True))
            await reader.readuntil(b'"content":"a"')
            took = await _stop(server)
            assert 0.4 < took < 3
            assert (await reader.read()).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")

    run(scenario())


def test_a_stream_longer_than_the_grace_ends_with_an_error() -> None:
    async def scenario() -> None:
        pipeline = FakePipeline(TICKS)
        async with running(make_app(pipeline), grace=0.2) as server:
            streams = [await server.connect(chat_body(stream=True)) for _ in range(3)]
            whole = await server.connect(chat_body())
            for reader, _ in streams:
                await reader.readuntil(b"tick")
            await until(lambda: pipeline.running == 4)
            assert await _stop(server) < 2
            for reader, _ in streams:
                last = (await reader.read()).split(b"data: ")[-1]
                error = json.loads(last.split(b"\n")[0])["error"]
                assert error["message"] == "The server is shutting down."
            status = await whole[0].readline()
            assert status.startswith(b"HTTP/1.1 503")
            assert pipeline.closed == ["cancelled"] * 4

    run(scenario())


def test_a_slow_reader_loses_its_stream_alone() -> None:
    big: Script = [x for _ in range(2000) for x in (TextPiece(0, "x" * 100_000, 1), 0.0)]

    async def scenario() -> None:
        pipeline = FakePipeline(lambda job: big if job.id.endswith("1") else TICKS)
        async with running(make_app(pipeline, stall=0.3), grace=0.1) as server:
            slow, slow_writer = await server.connect(chat_body(stream=True))
            await slow.readexactly(1000)
            reader, _ = await server.connect(chat_body(stream=True))
            slow_writer.transport.pause_reading()  # type: ignore[attr-defined]
            await until(lambda: pipeline.closed == ["cancelled"], 5)
            assert pipeline.running == 1
            await reader.readuntil(b"tick")
            # The server resets its connection instead of waiting until it reads.
            slow_writer.transport.resume_reading()  # type: ignore[attr-defined]
            with pytest.raises(ConnectionResetError):
                await slow.read()

    run(scenario())


def test_a_client_that_never_reads_does_not_delay_the_shutdown() -> None:
    big: Script = [TextPiece(0, "x" * 20_000_000, 1), *say("end")]

    async def scenario() -> None:
        async with running(make_app(FakePipeline(big)), grace=0.2) as server:
            reader, writer = await server.connect(chat_body(stream=True))
            await reader.readexactly(1000)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            assert await _stop(server) < 10

    run(scenario())


def test_a_large_body_gets_its_answer() -> None:
    """Closing a connection with unread bytes resets it, and the client would lose the answer."""

    async def scenario() -> None:
        app = make_app(FakePipeline(), body=1000)
        async with running(app) as server:
            reader, writer = await server.connect(b"x" * 5_000_000)
            await writer.drain()
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 413")
            assert b"connection: close" in answer
            assert b"request_too_large" in answer

    run(scenario())


def test_a_head_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "HEAD_SECONDS", 0.2)

    async def scenario() -> None:
        async with running(make_app(FakePipeline())) as server:
            for head in (b"", b"GET / HTTP/1.1\r\nHost: localhost\r\n"):
                reader, writer = await server.open()
                writer.write(head)
                async with asyncio.timeout(2):
                    assert await _rest(reader) == b""
                reader, writer = await server.open()
            writer.write(b"GET / HTTP/1.1\r\nX: " + b"a" * 3_000_000)
            async with asyncio.timeout(2):
                assert await _rest(reader) == b""

    run(scenario())


async def _rest(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


def test_no_http_is_refused() -> None:
    async def scenario() -> None:
        async with running(make_app(FakePipeline())) as server:
            reader, writer = await server.open()
            writer.write(b"\x00\x01\x02 not http\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 400")

    run(scenario())


def test_cancelling_serve_closes_everything() -> None:
    async def scenario() -> None:
        pipeline = FakePipeline(TICKS)
        async with running(make_app(pipeline)) as server:
            reader, _ = await server.connect(chat_body(stream=True))
            await reader.readuntil(b"tick")
            server.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await server.task
            await until(lambda: pipeline.running == 0)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", server.port)

    run(scenario())


def test_curl_as_printed() -> None:
    body = (
        b'{"model": "demo", "max_tokens": 2049, "messages":[{"role":"user", "content": '
        b'"What is the capital of South Africa?" }]}'
    )

    async def scenario() -> None:
        async with running(make_app(FakePipeline())) as server:
            curl = await asyncio.create_subprocess_exec(
                "curl",
                "-sS",
                "-d",
                body.decode(),
                "-H",
                "Content-Type: application/json",
                f"http://localhost:{server.port}{CHAT}",
                stdout=asyncio.subprocess.PIPE,
            )
            out, _ = await curl.communicate()
            assert json.loads(out)["choices"][0]["message"]["content"] == "Pretoria"

    run(scenario())
