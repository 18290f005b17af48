"""Four times the requests that an engine can answer: what happens to those that are accepted.

The engine is echo with 16 slots, and an answer takes about a second. At capacity, 16 clients
send one request after the other. At overload, requests come at four times that rate, whatever
happens to the ones before, and none is sent again. The peer of a row is the value at capacity.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bench.plan import Plan, chat
from bench.processes import resident_bytes
from bench.servers import Served, ours
from bench.table import Row, ratio

_SLOTS = 16
_TOKENS = 50
_DELAY_MS = "20"
_TIMES = 4
_PROBE_SECONDS = 0.05
_BODY = chat("word " * 60, max_tokens=_TOKENS)
_END = b"\r\n0\r\n\r\n"  # of a chunked body


@dataclass
class _Seen:
    """Seconds of each request, by what became of it."""

    whole: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    failed: list[float] = field(default_factory=list)
    health: list[float] = field(default_factory=list)
    seconds: float = 0.0


def overload_rows(plan: Plan) -> list[Row]:
    options = ("--slots", str(_SLOTS))
    with ours(None, "out=echo", options=options, DYNEMO_TOKEN_ECHO_DELAY_MS=_DELAY_MS) as served:
        return asyncio.run(_measure(served, plan.overload_seconds))


async def _measure(served: Served, seconds: float) -> list[Row]:
    await _watched(served, _closed(served, 1.0))  # warms both up
    full = await _watched(served, _closed(served, seconds / 4))
    rate = len(full.whole) / full.seconds
    first = await _watched(served, _open(served, _TIMES * rate, seconds / 2))
    middle = resident_bytes(served.pid)
    second = await _watched(served, _open(served, _TIMES * rate, seconds / 2))
    grown = (resident_bytes(served.pid) - middle) / 1e6
    halves = (first, second)
    latencies, usual = [_p99(half.whole) for half in halves], _p99(full.whole)
    how = f"at {_TIMES} times the capacity"
    answered = sum(len(half.whole) for half in halves) / (first.seconds + second.seconds)
    return [
        ratio(f"answer, p99, {how}", "s", latencies, [usual, usual], goal=2),
        Row(f"answers a second, {how}", answered, "", rate),
        Row("  beside them refused with 429", _share(first, second), "%"),
        Row("  requests that failed", float(len(first.failed + second.failed)), "", goal=1),
        Row("  a refusal, p99", _p99(first.refused + second.refused) * 1000, "ms", goal=50),
        Row(
            "  /health, p99",
            _p99(first.health + second.health) * 1000,
            "ms",
            _p99(full.health) * 1000,
            goal=50,
        ),
        Row("  runner's memory (RSS), growth in the second half", grown, "MB", goal=5),
    ]


def _share(*seen: _Seen) -> float:
    refused = sum(len(one.refused) for one in seen)
    return 100 * refused / max(1, refused + sum(len(one.whole) for one in seen))


def _p99(seconds: list[float]) -> float:
    ordered = sorted(seconds)
    return ordered[int(len(ordered) * 0.99)] if ordered else 0.0


Load = Callable[[_Seen], Awaitable[None]]


async def _watched(served: Served, load: Load) -> _Seen:
    """Runs a load, and asks for /health meanwhile."""
    seen = _Seen()
    probing = asyncio.create_task(_probe(served, seen))
    began = time.perf_counter()
    await load(seen)
    seen.seconds = time.perf_counter() - began
    probing.cancel()
    await asyncio.wait([probing])
    return seen


def _closed(served: Served, seconds: float) -> Load:
    async def load(seen: _Seen) -> None:
        until = time.perf_counter() + seconds

        async def work() -> None:
            while time.perf_counter() < until:
                await _ask(served, seen)

        await asyncio.gather(*(work() for _ in range(_SLOTS)))

    return load


def _open(served: Served, rate: float, seconds: float) -> Load:
    async def load(seen: _Seen) -> None:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for number in range(int(rate * seconds)):
                await asyncio.sleep(began + number / rate - time.perf_counter())
                tasks.create_task(_ask(served, seen))

    return load


async def _probe(served: Served, seen: _Seen) -> None:
    while True:
        began = time.perf_counter()
        if (await _exchange(served, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"))[0] == 200:
            seen.health.append(time.perf_counter() - began)
        else:
            seen.failed.append(time.perf_counter() - began)
        await asyncio.sleep(_PROBE_SECONDS)


async def _ask(served: Served, seen: _Seen) -> None:
    body = json.dumps(_BODY).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    began = time.perf_counter()
    status, data = await _exchange(served, head % len(body) + body)
    took = time.perf_counter() - began
    if status == 200 and data.endswith(_END) and b"[DONE]" in data:
        seen.whole.append(took)
    elif status == 429 and b"retry-after" in data.lower():
        seen.refused.append(took)
    else:
        seen.failed.append(took)


async def _exchange(served: Served, request: bytes) -> tuple[int, bytes]:
    """Sends one request on a connection of its own. Returns status 0 if the connection breaks."""
    data = b""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    except OSError:
        return 0, b""
    try:
        writer.write(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        data = await reader.read(-1)
        return int(data[9:12] or 0), data
    except (OSError, ValueError):
        return 0, data
    finally:
        writer.close()
