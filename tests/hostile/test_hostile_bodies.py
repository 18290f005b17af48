"""Requests with large, deep, slow or crumbled bodies, while the other streams continue."""

import asyncio
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from dynemo.http import body as body_module
from dynemo.http import server as server_module
from dynemo.http.asgi import Event
from dynemo.limits import BODIES_BYTES, BODY_BYTES
from support.asgi_client import CHAT, Caller, Running, chat_body, make_app, run, running
from support.command import Server, serving
from support.fake_pipeline import FakePipeline
from support.paced_stream import paced_stream
from support.waiting import until

EMBEDDINGS = "/v1/embeddings"
#: Twenty times the goal for the longest gap inside another stream: clients compete for the cores.
MOST_GAP = 1.0
MB = 2**20


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("out=echo", DYNEMO_TOKEN_ECHO_DELAY_MS="5") as running_server:
        yield running_server


@pytest.fixture(scope="module")
def embedder() -> Iterator[Server]:
    with serving("--", "--embeddings") as running_server:
        yield running_server


def post(server: Server, path: str, body: bytes) -> tuple[int, Any]:
    place = urlsplit(server.url)
    assert place.hostname is not None
    connection = HTTPConnection(place.hostname, place.port, timeout=60)
    try:
        connection.request("POST", path, body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def chat(field: bytes) -> bytes:
    return b'{"messages":[{"role":"user","content":"hi"}],"max_tokens":1,%b}' % field


def messages(message: bytes) -> bytes:
    return b'{"max_tokens":1,"messages":[%b]}' % message


def assistant(arguments: bytes) -> bytes:
    call = b'{"id":"1","function":{"name":"f","arguments":%b}}' % arguments
    return messages(b'{"role":"assistant","tool_calls":[%b]},{"role":"user","content":"a"}' % call)


def _deep(opening: bytes, closing: bytes, depth: int) -> bytes:
    return opening * depth + b"1" + closing * depth


#: Bodies, with the field that the error names. They are made when they are needed: some are large.
WRONG: dict[str, tuple[Callable[[], bytes], str | None]] = {
    "a stop string of 1 MB": (lambda: chat(b'"n":64,"stop":["%b"]' % (b"a" * MB)), "stop[0]"),
    "17 stop strings": (lambda: chat(b'"stop":[%b"a"]' % (b'"a",' * 16)), "stop"),
    "a million stop strings": (lambda: chat(b'"stop":[%b"a"]' % (b'"a",' * 500_000)), "stop"),
    "129 choices": (lambda: chat(b'"n":129'), "n"),
    "9 million lists": (lambda: chat(b'"tools":[%b1]' % (b"[]," * 9_000_000)), "tools"),
    "half a million lists": (lambda: chat(b'"tools":[%b1]' % (b"[]," * 400_000)), "tools[0]"),
    "a million messages": (
        lambda: messages(b'%b{"role":"user","content":""}' % (b'{"role":"user"},' * 1_000_000)),
        "messages",
    ),
    "10,001 messages": (
        lambda: messages(b",".join([b'{"role":"user","content":"a"}'] * 10_001)),
        "messages",
    ),
    "10,001 parts": (
        lambda: messages(
            b'{"role":"user","content":[%b]}' % b",".join([b'{"type":"text","text":"a"}'] * 10_001)
        ),
        "messages[0].content",
    ),
    "10,001 calls": (
        lambda: messages(
            b'{"role":"assistant","tool_calls":[%b]}'
            % b",".join([b'{"function":{"name":"f"}}'] * 10_001)
        ),
        "messages[0].tool_calls",
    ),
    "1,025 biases": (
        lambda: chat(b'"logit_bias":{%b"0":1}' % b"".join(b'"%d":1,' % n for n in range(1, 1025))),
        "logit_bias",
    ),
    "a model's name of 20 MB": (lambda: chat(b'"model":"%b"' % (b"m" * 20 * MB)), "model"),
    "a field's name of 20 MB": (lambda: chat(b'"%b":1' % (b"k" * 20 * MB)), "k" * 197 + "..."),
    "a role of 20 MB": (
        lambda: messages(b'{"role":"%b","content":"a"}' % (b"r" * 20 * MB)),
        "messages[0].role",
    ),
    "a tool's name of 1 MB": (
        lambda: messages(
            b'{"role":"assistant","tool_calls":[{"function":{"name":"%b"}}]}' % (b"n" * MB)
        ),
        "messages[0].tool_calls[0].function.name",
    ),
    "arguments of 2 MB": (
        lambda: assistant(b'"%b"' % (b"[" * 2 * MB)),
        "messages",  # the brackets count, wherever they are
    ),
    "arguments of 2 MB of escapes": (
        lambda: assistant(b'"%b"' % (rb"\u005b" * 2 * MB)),
        "messages[0].tool_calls[0].function.arguments",
    ),
    "deep arguments": (
        lambda: assistant(_deep(b'{"a":', b"}", 200)),
        "messages[0].tool_calls[0].function.arguments",
    ),
    "deep arguments for a template": (
        lambda: chat(b'"chat_template_kwargs":%b' % _deep(b'{"a":', b"}", 200)),
        "chat_template_kwargs",
    ),
    "large arguments for a template": (
        lambda: chat(b'"chat_template_kwargs":{"a":"%b"}' % (b"a" * 5 * MB)),
        "chat_template_kwargs",
    ),
    "a deep schema": (
        lambda: chat(
            b'"response_format":{"type":"json_schema","json_schema":{"schema":%b}}'
            % _deep(b'{"not":', b"}", 500)
        ),
        "response_format.json_schema.schema",
    ),
    "20,000 brackets": (lambda: chat(b'"tools":%b' % (b"[" * 20_000)), "tools[0]"),
    "20,000 braces": (lambda: chat(b'"metadata":%b' % (b'{"a":' * 20_000)), "metadata[...]"),
    "a number of 10,000 digits": (lambda: chat(b'"seed":%b' % (b"1" * 10_000)), "seed"),
    "a number beyond all floats": (lambda: chat(b'"temperature":1e400'), "temperature"),
    "NaN": (lambda: chat(b'"temperature":NaN'), None),
    "no UTF-8": (lambda: chat(b'"user":"\xff"'), None),
    "half a surrogate pair": (lambda: chat(rb'"user":"\ud800"'), None),
    "no messages": (lambda: b'{"messages":[]}', "messages"),
    "no JSON": (lambda: b"\x00" * MB, None),
    "a byte order mark": (lambda: b"\xef\xbb\xbf" + chat(b'"n":1'), None),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_body_gets_a_400_while_others_stream(server: Server, name: str) -> None:
    make, param = WRONG[name]
    body = make()
    with paced_stream(server.url) as gaps:
        status, answer = post(server, CHAT, body)
        time.sleep(0.1)
    assert (status, answer["error"]["param"]) == (400, param)
    assert len(json.dumps(answer)) < 3000
    assert gaps.reads > 0
    assert gaps.longest < MOST_GAP


#: Bodies that are within all bounds, and cost the most there.
HEAVY: dict[str, Callable[[], bytes]] = {
    "16 stop strings of 256 characters": lambda: chat(
        b'"n":64,"stop":%b' % json.dumps(["a" * size + "b" for size in range(240, 256)]).encode()
    ),
    "10,000 messages": lambda: messages(b",".join([b'{"role":"user","content":"a"}'] * 10_000)),
    "10,000 parts": lambda: messages(
        b'{"role":"user","content":[%b]}' % b",".join([b'{"type":"text","text":"a"}'] * 10_000)
    ),
    "30 MB of spaces": lambda: chat(b'"n":1' + b" " * 30 * MB),
    "the same key 90,000 times": lambda: chat(b'"n":1,' * 90_000 + b'"n":1'),
    "20,000 brackets in arguments": lambda: assistant(b'"%b"' % (b"[" * 20_000)),
}


@pytest.mark.parametrize("name", HEAVY)
def test_a_heavy_body_is_answered_while_others_stream(server: Server, name: str) -> None:
    body = HEAVY[name]()
    with paced_stream(server.url) as gaps:
        status, _ = post(server, CHAT, body)
        time.sleep(0.1)
    assert status == 200
    assert gaps.longest < MOST_GAP


def test_stop_strings_cost_the_same_for_each_character(server: Server) -> None:
    """Each of 16 strings begins like the answer, and 64 choices search for them."""
    fields = {
        "messages": [{"role": "user", "content": "a" * 2000}],
        "stop": ["a" * size + "b" for size in range(240, 256)],
        "n": 64,
        "max_tokens": 500,
    }
    with paced_stream(server.url) as gaps:
        status, answer = post(server, CHAT, json.dumps(fields).encode())
    assert status == 200
    assert len(answer["choices"]) == 64
    assert gaps.longest < MOST_GAP


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"input":"%b"}' % (b"lorem ipsum " * 2_000_000), "more than"),
        (b'{"input":[%b"a"]}' % (b'"%b",' % (b"lorem ipsum " * 2000) * 400), "together"),
        (b'{"input":[%b1]}' % (b"1," * 600_000), "has 600001 tokens"),
        (b'{"input":[%b"a"]}' % (b'"a",' * 2048), "2048 texts"),
    ],
    ids=["one text", "many texts", "many ids", "too many texts"],
)
def test_texts_to_embed_are_measured_before_they_are_tokenized(
    embedder: Server, body: bytes, says: str
) -> None:
    began = time.monotonic()
    status, answer = post(embedder, EMBEDDINGS, body)
    assert (status, answer["error"]["param"]) == (400, "input")
    assert says in answer["error"]["message"]
    assert time.monotonic() - began < 5  # tokenizing all of it took 12 s


def _resident(pid: int) -> int:
    """Returns the memory of a process in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


def _unfinished(server: Server, size: int) -> socket.socket:
    """Sends a body without its last byte, or what the server takes of it."""
    place = urlsplit(server.url)
    client = socket.create_connection((place.hostname, place.port), timeout=20)
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size + 1}\r\n\r\n"
    try:
        client.sendall(head.encode())
        for _ in range(size // 65536):
            client.sendall(b"a" * 65536)
    except OSError:
        pass  # refused
    return client


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_unfinished_bodies_share_a_budget_whose_memory_comes_back() -> None:
    with serving("out=echo", DYNEMO_TOKEN_ECHO_DELAY_MS="5") as server:
        pid = server.process.pid
        assert post(server, CHAT, chat(b'"n":1'))[0] == 200
        before = _resident(pid)
        with ExitStack() as stack, paced_stream(server.url, 20_000) as gaps:
            clients = [stack.enter_context(_unfinished(server, BODY_BYTES - MB)) for _ in range(16)]
            held = _resident(pid) - before
            assert post(server, CHAT, chat(b'"n":1'))[0] == 200  # small ones need no room
            statuses = [_status(client) for client in clients]
        assert BODIES_BYTES // 2 < held < BODIES_BYTES + 128 * MB
        assert set(statuses) == {0, 429}
        assert gaps.longest < MOST_GAP
        deadline = time.monotonic() + 10
        while _resident(pid) - before > 48 * MB and time.monotonic() < deadline:
            time.sleep(0.1)
        assert _resident(pid) - before < 48 * MB
        large = chat(b'"user":"%b"' % (b"a" * 20 * MB))
        assert post(server, CHAT, large)[0] == 200


def _status(client: socket.socket) -> int:
    """Returns the status that has arrived, or 0."""
    client.settimeout(0.1)
    try:
        return int(client.recv(64).split(b" ")[1])
    except TimeoutError:
        return 0


class _Unfinished(Caller):
    """A client that never sends the end of its body."""

    async def receive(self) -> Event:
        return {**await super().receive(), "more_body": True}


def test_the_room_for_bodies_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_module, "SMALL_BODY_BYTES", 10)
    room = body_module.BodyRoom(1000)
    app = make_app(FakePipeline())
    monkeypatch.setattr(app, "room", room)
    large = chat_body(user="a" * 900)

    async def scenario() -> None:
        waiting = _Unfinished(app, "POST", CHAT, large[:700])
        held = asyncio.create_task(waiting.run())
        await until(lambda: not waiting._parts)
        refused = await Caller(app, "POST", CHAT, large).run()
        assert refused.status == 429
        assert int(refused.headers["retry-after"]) > 0
        assert refused.headers["connection"] == "close"
        assert (await Caller(app, "POST", CHAT, chat_body()).run()).status == 200
        waiting.leave()
        await held
        assert (await Caller(app, "POST", CHAT, large).run()).status == 200
        assert (await Caller(app, "POST", CHAT, b"{" + large).run()).status == 400
        assert (await Caller(app, "POST", CHAT, large).run()).status == 200

    run(scenario())


def test_huge_bodies_are_read_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading one takes up to ten times its memory."""
    monkeypatch.setattr(body_module, "HUGE_BODY_BYTES", 500)
    app = make_app(FakePipeline())
    huge = chat_body(user="a" * 900)

    async def scenario() -> None:
        await app.room.turn.acquire()
        waiting = asyncio.create_task(Caller(app, "POST", CHAT, huge).run())
        assert (await Caller(app, "POST", CHAT, chat_body()).run()).status == 200
        assert not waiting.done()
        app.room.turn.release()
        assert (await waiting).status == 200
        for body, status in ((b"{" + huge, 400), (huge, 200)):
            assert (await Caller(app, "POST", CHAT, body).run()).status == status
        assert not app.room.turn.locked()

    run(scenario())


async def _send(server: Running, *parts: bytes, pause: float = 0.0) -> bytes:
    """Sends the parts of a request, and returns the answer up to the connection's end."""
    reader, writer = await server.open()
    received = b""

    async def send() -> None:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(pause)

    sending = asyncio.create_task(send())
    try:
        async with asyncio.timeout(20):
            while data := await reader.read(65536):
                received += data
    except ConnectionError:
        pass  # it was reset
    finally:
        sending.cancel()
        await asyncio.wait([sending])
        writer.close()
    return received


def _head(*lines: bytes, method: bytes = b"POST", path: bytes = CHAT.encode()) -> bytes:
    first = b"%b %b HTTP/1.1" % (method, path)
    return b"\r\n".join([first, b"Host: localhost", *lines, b"", b""])


def test_a_body_that_drips_does_not_live_for_ever() -> None:
    async def scenario() -> None:
        app = make_app(FakePipeline(), stall=5.0, body_time=0.3, farewell=0.2)
        async with running(app) as server:
            began = time.monotonic()
            head = _head(b"Content-Length: 1000")
            answer = await _send(server, head, *[b" "] * 100, pause=0.02)
            assert answer.startswith(b"HTTP/1.1 408")
            assert b"connection: close" in answer
            assert time.monotonic() - began < 10

    run(scenario())


def test_a_slow_upload_that_continues_is_answered() -> None:
    body = chat_body(user="a" * 20_000)
    parts = [body[at : at + 1000] for at in range(0, len(body), 1000)]

    async def scenario() -> None:
        app = make_app(FakePipeline(), body_time=0.1, body_rate=10_000)
        async with running(app) as server:
            head = _head(b"Connection: close", b"Content-Length: %d" % len(body))
            answer = await _send(server, head, *parts, pause=0.03)  # 0.6 s, and 2 s are allowed
            assert answer.startswith(b"HTTP/1.1 200")

    run(scenario())


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_the_rest_of_a_body_that_was_answered_is_not_awaited_for_ever(
    monkeypatch: pytest.MonkeyPatch, method: bytes
) -> None:
    monkeypatch.setattr(server_module, "BODY_REST_SECONDS", 0.3)

    async def scenario() -> None:
        async with running(make_app(FakePipeline())) as server:
            head = _head(b"Content-Length: 1000", method=method, path=b"/nothing")
            began = time.monotonic()
            answer = await _send(server, head, *[b" "] * 100, pause=0.02)
            assert time.monotonic() - began < 10
            assert answer == b"" or answer.startswith(b"HTTP/1.1 404")

    run(scenario())


def test_a_body_in_crumbs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "BODY_CHUNKS", 1000)

    async def scenario() -> None:
        async with running(make_app(FakePipeline())) as server:
            head = _head(b"Transfer-Encoding: chunked")
            answer = await _send(server, head + b"1\r\n \r\n" * 2000)
            assert answer.startswith(b"HTTP/1.1 400")
            body = b"".join(b"1\r\n%c\r\n" % byte for byte in chat_body()) + b"0\r\n\r\n"
            answer = await _send(
                server, _head(b"Connection: close", b"Transfer-Encoding: chunked"), body
            )
            assert answer.startswith(b"HTTP/1.1 200")

    run(scenario())


def test_pipelined_requests_are_bounded() -> None:
    async def scenario() -> None:
        async with running(make_app(FakePipeline())) as server:
            flood = _head(method=b"GET", path=b"/live") * 5000
            answer = await _send(server, flood)
            assert answer.count(b"HTTP/1.1 200") < 50
            few = _head(method=b"GET", path=b"/live") * 9
            last = _head(b"Connection: close", method=b"GET", path=b"/live")
            assert (await _send(server, few + last)).count(b"HTTP/1.1 200") == 10

    run(scenario())


@pytest.mark.parametrize(
    ("lines", "body", "status"),
    [
        ([b"Content-Encoding: gzip", b"Content-Length: 3"], b"\x1f\x8b\x08", 415),
        ([b"Content-Length: 99999999999999"], b"", 413),
        ([b"Content-Length: " + b"9" * 5000], b"", 400),
        ([b"Content-Length: -1"], b"", 400),
        ([b"Content-Length: 5", b"Content-Length: 6"], b"hello", 400),
        ([b"Content-Length: 5", b"Transfer-Encoding: chunked"], b"0\r\n\r\n", 400),
        ([b"Transfer-Encoding: gzip, chunked"], b"0\r\n\r\n", 400),
        ([b"Transfer-Encoding: chunked"], b"fffffffffffffffffffff\r\n", 400),
        ([b"Content-Length: 0"], b"", 400),
        ([b"Content-Length: 0", *[b"a: b"] * 9000], b"", 400),
        ([b"Expect: 100-continue", b"Content-Length: 99999999"], b"", 413),
    ],
)
def test_lengths_and_encodings_that_lie(lines: list[bytes], body: bytes, status: int) -> None:
    async def scenario() -> None:
        async with running(make_app(FakePipeline(), stall=0.5, farewell=0.2)) as server:
            answer = await _send(server, _head(*lines, b"Connection: close") + body)
            found = answer.split(b" ", 2)[1] if answer else b"400"  # or the connection just ends
            assert int(found) == status

    run(scenario())
