"""The part of HTTP/1.1 that llama.cpp's own server speaks on its Unix socket.

The engine host has only the standard library, whose HTTP client blocks, and this code runs for each
token. There is one request per connection, because closing the connection aborts a sequence.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from msgspec import DecodeError

from dynemo.errors import EngineError, RequestError
from dynemo.foreign import decode_json

_EVENT = b"data: "
_CLOSED = "llama.cpp's server closed the connection."


async def get(path: str, target: str) -> bytes:
    """Returns the body of a GET. Raises EngineError unless the status is 200."""
    reader, writer = await _connect(path)
    try:
        writer.write(b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % target.encode())
        status, headers = await _head(reader)
        body = await _body(reader, headers)
    finally:
        writer.transport.abort()
    if status != 200:
        raise EngineError(f"llama.cpp answered {status} to {target}: {_reason(body)}.")
    return body


async def ask(path: str, target: str, body: bytes) -> bytes:
    """Returns the whole body that answers a POST. Raises the same errors as `post`."""
    async with post(path, target, body) as events:
        return await events.rest()


@asynccontextmanager
async def post(path: str, target: str, body: bytes) -> AsyncIterator["Events"]:
    """Sends a POST and provides its server-sent events. Leaving the context aborts the request.

    Raises RequestError if the server refuses the request, and EngineError if it fails.
    """
    reader, writer = await _connect(path)
    try:
        writer.write(
            b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\nConnection: close\r\n\r\n%b"
            % (target.encode(), len(body), body)
        )
        status, headers = await _head(reader)
        if status != 200:
            message = f"llama.cpp: {_reason(await _body(reader, headers))}."
            raise RequestError(message) if status == 400 else EngineError(message)
        yield Events(reader, headers)
    finally:
        writer.transport.abort()


class Events:
    """The server-sent events of a chunked body, or a plain body."""

    def __init__(self, reader: asyncio.StreamReader, headers: dict[bytes, bytes]) -> None:
        self._reader = reader
        self._headers = headers
        self._whole: deque[bytes] = deque()
        self._partial = b""

    async def next(self) -> bytes:
        """Returns the data of the next event, or b"" at the end. Raises EngineError."""
        while not self._whole:
            chunk = await _chunk(self._reader)
            if not chunk:
                return b""
            *events, self._partial = (self._partial + chunk).split(b"\n\n")
            self._whole.extend(filter(None, map(_data, events)))
        return self._whole.popleft()

    async def rest(self) -> bytes:
        """Returns the body if it is not a stream of events."""
        return await _body(self._reader, self._headers)


def _data(event: bytes) -> bytes:
    """Returns the data of an event. A comment, which keeps the connection alive, has none."""
    if event.startswith(b"error: "):
        raise EngineError(f"llama.cpp: {_reason(event[7:])}.")
    return event[len(_EVENT) :] if event.startswith(_EVENT) else b""


async def _connect(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        return await asyncio.open_unix_connection(path)
    except OSError as error:
        raise EngineError(f"llama.cpp's server does not answer: {error.strerror}.") from error


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[bytes, bytes]]:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise EngineError(_CLOSED) from error
    status, *lines = head[:-4].split(b"\r\n")
    pairs = (line.split(b":", 1) for line in lines)
    return int(status.split()[1]), {name.lower(): value.strip() for name, value in pairs}


async def _body(reader: asyncio.StreamReader, headers: dict[bytes, bytes]) -> bytes:
    try:
        if b"content-length" in headers:
            return await reader.readexactly(int(headers[b"content-length"]))
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise EngineError(_CLOSED) from error
    parts = []
    while part := await _chunk(reader):
        parts.append(part)
    return b"".join(parts)


async def _chunk(reader: asyncio.StreamReader) -> bytes:
    """Returns one chunk of a chunked body, or b"" at its end."""
    try:
        size = int(await reader.readuntil(b"\r\n"), 16)
        return (await reader.readexactly(size + 2))[:-2]
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise EngineError(_CLOSED) from error


def _reason(body: bytes) -> str:
    """Returns the message in the server's error body, or the body itself, without a full stop."""
    try:
        return str(decode_json(body, dict[str, Any])["error"]["message"]).rstrip(".")
    except (DecodeError, KeyError, TypeError):
        return body[:500].decode(errors="replace").rstrip(".")
