"""Calls an ASGI app in this process, or a real server on a free port."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import uvloop

from dynemo.http.access.access import Access
from dynemo.http.app import App
from dynemo.http.asgi import Event
from dynemo.http.exchange import Limits
from dynemo.http.server import bind, serve
from dynemo.metrics import Metrics
from support.fake_pipeline import FakePipeline

T = TypeVar("T")

#: A dict gets a `Host` header if it has none; a list of pairs is sent as it is.
Headers = dict[str, str] | list[tuple[str, str]]

CHAT = "/v1/chat/completions"
USER = {"role": "user", "content": "hi"}


def make_app(pipeline: FakePipeline, access: Access | None = None, **limits: Any) -> App:
    return App(pipeline, Metrics(), limits=Limits(**limits), access=access)


@dataclass
class Reply:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_complete: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """Returns the decoded data of each event; `[DONE]` is that string."""
        data = [part.removeprefix(b"data: ") for part in self.body.split(b"\n\n") if part]
        return [json.loads(part) if part != b"[DONE]" else "[DONE]" for part in data]


class Caller:
    """A client that sends one request to the app and stays connected until `leave`."""

    def __init__(
        self,
        app: App,
        method: str,
        path: str,
        body: bytes | Sequence[bytes] = b"",
        headers: Headers | None = None,
    ) -> None:
        self.reply = Reply()
        self.arrived = asyncio.Event()  #: set by the first bytes of the body
        self._gone = asyncio.Event()
        self._parts = [body] if isinstance(body, bytes) else list(body)
        self._app = app
        self.scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": path,
            "http_version": "1.1",
            "headers": [(k.encode(), v.encode()) for k, v in _headers(headers)],
        }

    async def run(self) -> Reply:
        await self._app(self.scope, self.receive, self.send)
        return self.reply

    def leave(self) -> None:
        self._gone.set()

    async def receive(self) -> Event:
        if self._parts:
            part = self._parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(self._parts)}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, event: Event) -> None:
        reply = self.reply
        assert not reply.is_complete
        if event["type"] == "http.response.start":
            assert not reply.status
            reply.status = event["status"]
            reply.headers = {k.decode(): v.decode() for k, v in event["headers"]}
        else:
            assert reply.status
            reply.body += event["body"]
            reply.is_complete = not event["more_body"]
            self.arrived.set()


def _headers(given: Headers | None) -> list[tuple[str, str]]:
    if isinstance(given, list):
        return given
    return list(({"host": "localhost"} | (given or {})).items())


async def call(
    app: App,
    method: str,
    path: str,
    body: bytes | Sequence[bytes] = b"",
    headers: Headers | None = None,
) -> Reply:
    return await Caller(app, method, path, body, headers).run()


def chat_body(**fields: Any) -> bytes:
    return json.dumps({"model": "demo", "messages": [USER], **fields}).encode()


def ask(app: App, **fields: Any) -> Reply:
    """Sends one chat request, in its own event loop."""
    return asyncio.run(call(app, "POST", CHAT, chat_body(**fields)))


@dataclass
class Running:
    app: App
    port: int
    stop: asyncio.Event
    task: "asyncio.Task[None]"
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def connect(
        self, body: bytes, path: str = CHAT
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Opens a raw connection and sends the request on it."""
        reader, writer = await self.open()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        return reader, writer

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Opens a raw connection. It closes with the server."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        return reader, writer

    async def end(self) -> None:
        self.stop.set()
        await asyncio.wait([self.task])
        for writer in self.writers:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()
        if not self.task.cancelled():
            self.task.result()


@asynccontextmanager
async def running(
    app: App, *, grace: float = 5.0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Running]:
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    stop = asyncio.Event()
    task = asyncio.create_task(serve(app, listener=listener, grace=grace, stop=stop, tls=tls))
    server = Running(app, port, stop, task)
    try:
        yield server
    finally:
        await server.end()


def run(scenario: Coroutine[Any, Any, T]) -> T:
    """Runs the scenario on the event loop that production uses."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(scenario)
