"""Sends many streams at once to an ingress, and compares each with its expected answer."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from support.command import Server, serving

TOKENS = 128
#: How many streams a pool must complete through all faults.
MANY = 200
#: Enough streams for tests in which the number does not matter.
SOME = 48

#: Seconds after the start, and an action for that time.
Step = tuple[float, Callable[[], object]]


@dataclass
class Answer:
    """The answer that one client received."""

    status: int = 0
    text: str = ""
    finish: str | None = None
    usage: tuple[int, int] | None = None
    error: str = ""  #: why the answer is incomplete
    code: str = ""  #: of the error, if the server sent one
    seconds: float = 0.0
    first: float = 0.0  #: seconds until the first part of its text
    longest_gap: float = 0.0  #: seconds between two parts of its text
    gap_end: float = 0.0  #: seconds until the longest gap was over
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def whole(self) -> tuple[int, str, str | None, tuple[int, int] | None, str]:
        """Returns all fields except for the times and the headers."""
        return self.status, self.text, self.finish, self.usage, self.error


def prompts(number: int) -> list[str]:
    """Returns prompts that are longer than their answers. No prompt starts with another."""
    return [" ".join(f"{i} times {n}" for n in range(100)) for i in range(number)]


@cache
def undisturbed() -> list[Answer]:
    """Returns the expected answers of `streams`, from one server with its own engine."""
    with serving("out=echo", DYNEMO_TOKEN_ECHO_DELAY_MS="0") as server:
        return streams([server], MANY)


def streams(
    servers: Sequence[Server], number: int, *steps: Step, texts: Sequence[str] = (), **fields: Any
) -> list[Answer]:
    """Sends this number of requests at once, in turn to each server, and runs the steps meanwhile.

    `fields` are added to each request.
    """
    texts = texts or prompts(number)

    async def body() -> list[Answer]:
        asked = [
            asyncio.create_task(ask(servers[i % len(servers)].url, texts[i % len(texts)], **fields))
            for i in range(number)
        ]
        began = time.monotonic()
        for at, action in steps:
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            assert not all(task.done() for task in asked), "the streams ended before the steps"
            await asyncio.to_thread(action)
        return await asyncio.gather(*asked)

    return asyncio.run(body())


def check(got: Sequence[Answer]) -> None:
    """Checks that each stream is complete and equals the stream without faults."""
    expected = undisturbed()[: len(got)]
    assert {answer.error for answer in got} == {""}
    assert [answer.whole for answer in got] == [answer.whole for answer in expected]


def one(url: str, prompt: str = "Hello", **fields: Any) -> Answer:
    return asyncio.run(ask(url, prompt, **fields))


async def ask(url: str, prompt: str, **fields: Any) -> Answer:
    """Sends a request and reads its stream to the end."""
    body = {
        "messages": [{"role": "user", "content": prompt}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": TOKENS,
        "temperature": 0,
        **fields,
    }
    answer = Answer()
    began = last = time.monotonic()
    is_over = False
    try:
        async with aclosing(_post(url, json.dumps(body).encode(), answer)) as blocks:
            async for block in blocks:
                length = len(answer.text)
                is_over = _take(answer, block) or is_over
                if len(answer.text) > length:
                    now = time.monotonic()
                    _note_gap(answer, now - began, now - last)
                    last = now
    except (ConnectionError, asyncio.IncompleteReadError) as error:
        answer.error = f"the connection was lost: {error}"
    answer.seconds = time.monotonic() - began
    if not is_over and not answer.error:
        answer.error = "it ended before [DONE]"
    return answer


def _note_gap(answer: Answer, seconds: float, gap: float) -> None:
    """A part of its text has come."""
    if not answer.first:
        answer.first = seconds
    elif gap > answer.longest_gap:
        answer.longest_gap, answer.gap_end = gap, seconds


def _take(answer: Answer, block: bytes) -> bool:
    if answer.status != 200:
        answer.error += block.decode()
        answer.code = json.loads(block)["error"]["code"] or ""
        return False
    data = block.removeprefix(b"data: ")
    if data == b"[DONE]":
        return True
    event = json.loads(data)
    if "error" in event:
        answer.error = event["error"]["message"]
        answer.code = event["error"]["code"] or ""
        return False
    for choice in event["choices"]:
        answer.text += choice["delta"].get("content") or ""
        answer.finish = choice["finish_reason"] or answer.finish
    if usage := event.get("usage"):
        answer.usage = (usage["prompt_tokens"], usage["completion_tokens"])
    return False


async def _post(url: str, body: bytes, answer: Answer) -> AsyncGenerator[bytes, None]:
    """Yields the events of a chunked answer, or the whole body if it has a length."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {place.netloc}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        answer.status = int(first.split()[1])
        answer.headers = {n: v for n, _, v in (line.partition(": ") for line in lines)}
        if length := answer.headers.get("content-length"):
            yield await reader.readexactly(int(length))
            return
        rest = b""
        while size := int(await reader.readline() or b"0", 16):
            rest += (await reader.readexactly(size + 2))[:-2]
            *blocks, rest = rest.split(b"\n\n")
            for block in blocks:
                yield block
    finally:
        writer.close()
