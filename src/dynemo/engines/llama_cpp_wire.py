"""As much of HTTP/1.1 as llama.cpp's own server speaks on its Unix socket.

The engine host has nothing but the standard library, whose client blocks; and this is the per-token
path. One request a connection: closing it is how a sequence is aborted.
"""

import asyncio
from collections.abc import AsyncIterator

from dynemo.errors import EngineError

_EVENT = b"data: "


async def connect(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        return await asyncio.open_unix_connection(path)
    except OSError as error:
        raise EngineError(f"llama.cpp's server does not answer: {error.strerror}.") from error


async def get(path: str, target: str) -> bytes:
    """The body of one GET. Raises EngineError unless the status is 200."""
    reader, writer = await connect(path)
    try:
        writer.write(b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % target.encode())
        status, headers = await _head(reader)
        body = await _body(reader, headers)
    finally:
        writer.transport.abort()
    if status != 200:
        raise EngineError(f"llama.cpp answered {status} to {target}: {_readable(body)}")
    return body


async def post_stream(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str, body: bytes
) -> AsyncIterator[bytes]:
    """The data of each server-sent event that answers a POST. Raises EngineError unless 200."""
    writer.write(
        b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\nConnection: close\r\n\r\n" % (target.encode(), len(body))
    )
    writer.write(body)
    status, headers = await _head(reader)
    if status != 200:
        raise EngineError(f"llama.cpp: {_readable(await _body(reader, headers))}")
    partial = b""
    async for chunk in _chunks(reader):
        *events, partial = (partial + chunk).split(b"\n\n")
        for event in events:
            if event.startswith(_EVENT):
                yield event[len(_EVENT) :]
            elif event.startswith(b"error: "):
                raise EngineError(f"llama.cpp: {_readable(event[7:])}")


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[bytes, bytes]]:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise EngineError("llama.cpp's server closed the connection.") from error
    status, *lines = head[:-4].split(b"\r\n")
    pairs = (line.split(b":", 1) for line in lines)
    return int(status.split()[1]), {name.lower(): value.strip() for name, value in pairs}


async def _body(reader: asyncio.StreamReader, headers: dict[bytes, bytes]) -> bytes:
    try:
        if b"content-length" in headers:
            return await reader.readexactly(int(headers[b"content-length"]))
        return b"".join([chunk async for chunk in _chunks(reader)])
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise EngineError("llama.cpp's server closed the connection.") from error


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    try:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            yield (await reader.readexactly(size + 2))[:-2]
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise EngineError("llama.cpp's server closed the connection.") from error


def _readable(body: bytes) -> str:
    """The message inside the server's error body, or the body."""
    from msgspec import DecodeError, json

    try:
        return str(json.decode(body)["error"]["message"])
    except (DecodeError, KeyError, TypeError):
        return body[:500].decode(errors="replace")
