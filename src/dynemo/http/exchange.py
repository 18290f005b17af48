"""One HTTP request and its answer, over ASGI's receive and send.

It ends in one of four ways: the answer is complete; the client disconnects (`ClientGone`); a reader
or a sender makes no progress (`SlowReader`, `BodyTooSlow`); the server cancels it (`cancel`). The
last three cancel the work wherever it waits.
"""

import asyncio
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from uuid import uuid4

from dynemo.api.dialect import Dialect
from dynemo.errors import DynemoError, SlowReader
from dynemo.http.access.client import client_of_address
from dynemo.http.asgi import (
    ABORT,
    JSON,
    Event,
    Header,
    Receive,
    Scope,
    Send,
    body_event,
    find_header,
    start_event,
)
from dynemo.http.body import BodyReader, BodyRoom
from dynemo.http.cancel_scope import CancelScope
from dynemo.http.errors import BodyTooSlow, ClientGone, EncodedBody, headers_of
from dynemo.limits import BODY_BYTES, BODY_RATE, BODY_SECONDS, STALL_SECONDS
from dynemo.spelling import quoted

#: Of a declared length that are read: Python refuses to read numbers of many thousands.
_DIGITS = 20
_STREAM_HEADERS: list[Header] = [
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold tokens back
]


@dataclass(frozen=True, slots=True)
class Limits:
    body: int = BODY_BYTES  #: bytes of a request's body
    body_time: float = BODY_SECONDS  #: seconds for a body, besides those that its bytes add
    body_rate: float = BODY_RATE  #: bytes that add one second
    stall: float = STALL_SECONDS  #: seconds that one read or write may take
    farewell: float = 2.0  #: seconds for the last event to a client, or for dropping a body


class Exchange:
    """One task reads and writes. Any task on the same loop may call `cancel`."""

    __slots__ = (
        "_body",
        "_body_since",
        "_dialect",
        "_is_complete",
        "_is_ending",
        "_is_in_body",
        "_is_started",
        "_is_stream",
        "_loop",
        "_receive",
        "_scope",
        "_send",
        "_sending_since",
        "client",
        "headers",
        "id",
        "limits",
        "scope",
    )

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        limits: Limits,
        dialect: Dialect,
        room: BodyRoom,
    ) -> None:
        self.id = uuid4().hex
        self.scope = scope
        self.client = client_of_address(scope)
        self.headers: list[Header] = []  # of the answer, whatever it is
        self._dialect = dialect  # in which errors are written
        self.limits = limits
        self._receive = receive
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._scope = CancelScope()
        self._body = BodyReader(room, limits.body)
        self._body_since = 0.0
        self._is_in_body = False  # some of the body may still arrive
        self._is_started = False  # the headers have been sent
        self._is_stream = False
        self._is_ending = False  # the last send has begun
        self._is_complete = False
        self._sending_since: float | None = None

    def header(self, name: bytes) -> str:
        return find_header(self.scope, name)

    def cancel(self, error: Exception) -> None:
        """Cancels the work in `working`. A client that is still there gets the error."""
        self._scope.cancel(error)

    def working(self) -> "Working":
        """A scope in which the work can be cancelled. It is cancelled if a write makes no
        progress, or if too much waits to be written."""
        return Working(self, self._loop, self._scope)

    def listening(self) -> "Listening":
        """A scope in which a disconnect of the client cancels the work. Entered after the body has
        been read.

        Servers differ in what a send to a closed connection does, and a long prefill sends
        nothing: only ASGI's disconnect event reports it in time.
        """
        return Listening(self._loop, self._cancel_when_gone())

    @property
    def sending_since(self) -> float | None:
        """Loop time at which the pending write began; None if no write is pending."""
        return self._sending_since

    async def read_body(self) -> bytes:
        """Raises BodyTooLarge, BodyTooSlow, EncodedBody, Overloaded, ClientGone."""
        declared = self.header(b"content-length")
        self._is_in_body = True
        if declared.isdecimal():
            self._body.check(int(declared[:_DIGITS]))
        coding = self.header(b"content-encoding").strip().lower()
        if coding not in ("", "identity"):
            raise EncodedBody(f"Send the request body without the encoding {quoted(coding[:40])}.")
        self._body_since = self._loop.time()
        body = await self._body.read(self._next_of_body)
        self._is_in_body = False
        return body

    def release_body(self) -> None:
        """The body has been read into a call and is gone. Its memory may hold other bodies."""
        self._body.release()

    async def _next_of_body(self, arrived: int) -> Event:
        since = self._loop.time() - self._body_since
        left = self.limits.body_time + arrived / self.limits.body_rate - since
        try:
            async with asyncio.timeout(min(self.limits.stall, left)):
                return await self._receive()
        except TimeoutError:
            raise BodyTooSlow("The request body did not arrive in time.") from None

    async def reply(
        self,
        body: bytes,
        *,
        status: int = 200,
        content_type: str = JSON,
        headers: Iterable[Header] = (),
    ) -> None:
        """The whole answer at once."""
        self._is_ending = True
        await self._start(status, content_type, len(body), headers)
        is_head = self.scope["method"] == "HEAD"
        await self._write(b"" if is_head else body, more=False)

    async def write(self, data: bytes) -> None:
        """Events of a stream. The first call sends the headers."""
        if not self._is_started:
            await self._start_stream()
        await self._write(data, more=True)

    async def end(self, data: bytes) -> None:
        """The last events of a stream; they may be the first ones too."""
        if not self._is_started:
            await self._start_stream()
        self._is_ending = True
        await self._write(data, more=False)

    async def fail(self, error: DynemoError) -> None:
        """Sends the error to the client: as the answer, or as the last event of a stream.

        Called once, when the work is over. The connection is dropped if the client does not read
        the error in time, or if it is in the middle of an unfinished body.
        """
        if self._is_complete:
            return
        if isinstance(error, SlowReader) or (self._is_started and not self._is_stream):
            await self._abort()
            return
        try:
            async with asyncio.timeout(self.limits.farewell):
                await self._send_error(error)
        except TimeoutError:
            await self._abort()

    async def _send_error(self, error: DynemoError) -> None:
        if self._is_stream:
            await self.end(self._dialect.fail_stream(error))
            return
        body = self._dialect.fail(error)
        if not self._is_in_body:
            await self.reply(body, status=error.status, headers=headers_of(error))
        else:
            # The answer first, then the rest of the body is dropped: closing a connection on which
            # bytes still arrive resets it, and the client may lose the answer.
            headers = [*headers_of(error), (b"connection", b"close")]
            await self._start(error.status, JSON, len(body), headers)
            await self._write(body, more=True)
            await self._drop_body()
            await self.end(b"")

    async def _drop_body(self) -> None:
        if self.header(b"expect"):
            return  # the client waits for "100 Continue", and receiving would send it
        with suppress(TimeoutError):
            async with asyncio.timeout(self.limits.farewell / 2):
                while (await self._receive()).get("more_body", False):
                    pass

    async def _start_stream(self) -> None:
        self._is_stream = True
        await self._start(200, self._dialect.stream_type, None, _STREAM_HEADERS)

    async def _start(
        self, status: int, content_type: str, length: int | None, headers: Iterable[Header]
    ) -> None:
        self._is_started = True
        all_headers = [
            (b"content-type", content_type.encode()),
            (b"x-request-id", self.id.encode()),
        ]
        if length is not None:
            all_headers.append((b"content-length", b"%d" % length))
        await self._send(start_event(status, [*all_headers, *self.headers, *headers]))

    async def _write(self, data: bytes, *, more: bool) -> None:
        self._sending_since = self._loop.time()
        await self._send(body_event(data, more=more))
        self._sending_since = None
        self._is_complete = not more

    async def _cancel_when_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        # After the last write, servers report a disconnect that means nothing.
        if not self._is_ending:
            self._scope.cancel(ClientGone())

    async def _abort(self) -> None:
        """Drops the connection. A server that cannot do so drops it for an unfinished answer."""
        extension = self.scope.get("extensions", {}).get(ABORT)
        if extension is None:
            return
        extension["abort"]()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.limits.farewell):
                while (await self._receive())["type"] != "http.disconnect":
                    pass


class Working:
    """See `Exchange.working`. It has slots because each stream holds one: half a kB less."""

    __slots__ = ("_exchange", "_loop", "_scope", "_watch")

    def __init__(
        self, exchange: Exchange, loop: asyncio.AbstractEventLoop, scope: CancelScope
    ) -> None:
        self._exchange, self._loop, self._scope = exchange, loop, scope

    async def __aenter__(self) -> None:
        self._watch = StallWatch(self._exchange, self._loop)
        await self._scope.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._watch.cancel()
        await self._scope.__aexit__(kind, error, traceback)


class Listening:
    """See `Exchange.listening`."""

    __slots__ = ("_cancel_when_gone", "_listener", "_loop")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, cut_when_gone: Coroutine[Any, Any, None]
    ) -> None:
        self._loop, self._cancel_when_gone = loop, cut_when_gone

    async def __aenter__(self) -> None:
        self._listener = self._loop.create_task(self._cancel_when_gone)

    async def __aexit__(self, *_: object) -> None:
        self._listener.cancel()
        await asyncio.wait([self._listener])


class StallWatch:
    """Cancels an exchange whose write has been pending for `limits.stall` seconds.

    One timer for each exchange, checked only when it fires: a token costs two assignments.
    """

    __slots__ = ("_exchange", "_loop", "_timer")

    def __init__(self, exchange: Exchange, loop: asyncio.AbstractEventLoop) -> None:
        self._exchange = exchange
        self._loop = loop
        self._timer = loop.call_later(exchange.limits.stall, self._look)

    def cancel(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        limit = self._exchange.limits.stall
        since = self._exchange.sending_since
        waited = 0.0 if since is None else self._loop.time() - since
        if waited >= limit:
            self._exchange.cancel(SlowReader("The client reads too slowly; the stream was closed."))
        else:
            self._timer = self._loop.call_later(limit - waited, self._look)
