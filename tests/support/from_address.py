"""An HTTP client that sends each request on its own connection, from an address of its choice."""

import asyncio
import json
import re
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Received:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def error_code(self) -> str:
        """Returns the code of the error in a body, or in the last event of a stream."""
        found = re.findall(r'\{"error":\{.*\}\}', self.text)
        code: str = json.loads(found[-1])["error"]["code"]
        return code


@dataclass(frozen=True)
class Sender:
    url: str
    address: str = "127.0.0.1"

    async def get(self, path: str) -> Received:
        return await self._send(f"GET {path}", b"", {})

    async def post(self, path: str, body: Any, **headers: str) -> Received:
        """Sends JSON. Cancelling it closes the connection. In a header's name, `_` means `-`."""
        return await self._send(f"POST {path}", json.dumps(body).encode(), headers)

    async def _send(self, request: str, body: bytes, headers: dict[str, str]) -> Received:
        at = urlsplit(self.url)
        lines = [f"{request} HTTP/1.0", f"Host: {at.netloc}", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        reader, writer = await asyncio.open_connection(
            at.hostname, at.port, local_addr=(self.address, 0)
        )
        with closing(writer):
            writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            head, _, text = (await reader.read(-1)).partition(b"\r\n\r\n")
        first, *rest = head.decode().split("\r\n")
        fields = (line.split(": ", 1) for line in rest)
        received = {name.lower(): value for name, value in fields}
        return Received(int(first.split()[1]), received, text.decode())
