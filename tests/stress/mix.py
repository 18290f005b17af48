"""The clients of a soak run. Each sends one kind of request after the other, in random order."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from support.dyn_streams import ask

_PATIENCE = 60.0  #: seconds for one request; more is a hang
_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}},
    "required": ["city"],
    "additionalProperties": False,
}
_WRONG: tuple[Any, ...] = (
    b"{",
    b"\xff\xfe",
    b"[" * 5000,
    {"messages": "no"},
    {"messages": []},
    {"temperature": "warm"},
    {"max_tokens": -1},
    {"model": "another"},
    {"unheard_of": 1},
    {"stop": ["x"] * 40},
    {"n": 100_000},
    {"logit_bias": {"a": 1}},
    {"messages": [{"role": "user", "content": "x" * 9_000_000}]},
)
_HOSTILE_GUIDES: tuple[dict[str, Any], ...] = (
    {"type": "string", "pattern": "^((x{1000}){1000})$"},
    {"type": "string", "pattern": "[z-a]+"},
    {"type": "array", "minItems": 1_000_000_000},
    {"anyOf": [{"type": "integer", "multipleOf": 999_983}] * 50},
)


class Client:
    """One client of one server. `counted` gets the kind of each request, or what went wrong."""

    def __init__(self, url: str, seed: int) -> None:
        self._url = url
        self._chance = random.Random(seed)

    async def run(self, until: float, counted: Counter[str]) -> None:
        kinds = list(KINDS)
        while time.monotonic() < until:
            kind = self._chance.choice(kinds)
            try:
                async with asyncio.timeout(_PATIENCE):
                    problem = await KINDS[kind](self)
            except TimeoutError:
                problem = "hung"
            counted[f"{kind} {problem}" if problem else kind] += 1

    async def stream(self) -> str:
        words = " ".join(str(self._chance.random()) for _ in range(self._chance.choice((3, 40))))
        answer = await ask(self._url, words, max_tokens=40)
        return answer.error[:200]

    async def choices(self) -> str:
        """Asks for several choices with stop strings, in one answer."""
        status = await self._post({"n": 3, "stop": ["zz", "qq"], "max_tokens": 20})
        return "" if status == 200 else f"status {status}"

    async def cancel(self) -> str:
        """Leaves in the middle of the answer."""
        await self._post({"stream": True, "max_tokens": 200}, leave_after=0.1)
        return ""

    async def slow(self) -> str:
        """Reads nothing for a while, then leaves."""
        await self._post({"stream": True, "max_tokens": 400}, leave_after=1.5, is_reading=False)
        return ""

    async def wrong(self) -> str:
        body = self._chance.choice(_WRONG)
        status = await self._post(body)
        return "" if 400 <= status < 500 else f"status {status} for {body!r:.60}"

    async def guide(self) -> str:
        """An engine that follows no guides answers 400."""
        form = {"type": "json_schema", "json_schema": {"name": "a", "schema": _SCHEMA}}
        status = await self._post({"response_format": form, "max_tokens": 40})
        return "" if status in (200, 400) else f"status {status}"

    async def hostile_guide(self) -> str:
        schema = self._chance.choice(_HOSTILE_GUIDES)
        form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
        status = await self._post({"response_format": form, "max_tokens": 4})
        return "" if status in (200, 400) else f"status {status}"

    async def _post(self, body: Any, *, leave_after: float = 0.0, is_reading: bool = True) -> int:
        """Returns the status; 0 if the connection ended without one, or before the answer did."""
        if isinstance(body, dict):
            body = {"messages": [{"role": "user", "content": "Hello there"}], **body}
            body = json.dumps(body).encode()
        place = urlsplit(self._url)
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {place.netloc}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        try:
            writer.write(f"{head}connection: close\r\n\r\n".encode() + body)
            if leave_after and not is_reading:
                await asyncio.sleep(leave_after)
                return 0
            line = await reader.readline()
            if leave_after:
                await asyncio.sleep(leave_after)
                return 0
            await reader.read()
            return int(line.split()[1]) if line else 0
        except ConnectionError:
            return 0
        finally:
            writer.transport.abort()


KINDS: dict[str, Callable[[Client], Awaitable[str]]] = {
    "stream": Client.stream,
    "choices": Client.choices,
    "cancel": Client.cancel,
    "slow": Client.slow,
    "wrong": Client.wrong,
    "guide": Client.guide,
    "hostile_guide": Client.hostile_guide,
}
