"""Several ingresses in front of the same workers spread their streams together."""

import asyncio
import random
import re
import time
import urllib.request

import pytest

from support.command import Server
from support.dyn_fleet import Fleet, Worker
from support.dyn_streams import Answer, ask

SECONDS, RATE = 10.0, 15.0
PROMPT = "one two three " * 60


def status_url(worker: Worker) -> str:
    found = (re.search(r"http://\S+", line) for line in worker.lines if "status" in line)
    return next(match[0] for match in found if match is not None)


def in_flight(url: str) -> float:
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:
        text: str = answer.read().decode()
    [value] = re.findall(r"^dynemo_worker_requests_in_flight\{.*\} (\S+)$", text, re.MULTILINE)
    return float(value)


async def spread(ingresses: list[Server], urls: list[str]) -> tuple[float, list[Answer]]:
    """The mean of the most minus the fewest streams of a worker, and all answers."""
    generator = random.Random(3)
    asked: list[asyncio.Task[Answer]] = []
    spreads: list[float] = []
    end = time.monotonic() + SECONDS

    async def arrive(ingress: Server) -> None:
        while time.monotonic() < end:
            await asyncio.sleep(generator.expovariate(RATE / len(ingresses)))
            tokens = generator.choice([8, 120])
            asked.append(asyncio.create_task(ask(ingress.url, PROMPT, max_tokens=tokens)))

    async def sample() -> None:
        await asyncio.sleep(SECONDS / 3)
        while time.monotonic() < end:
            sizes = await asyncio.gather(*(asyncio.to_thread(in_flight, url) for url in urls))
            spreads.append(max(sizes) - min(sizes))
            await asyncio.sleep(0.2)

    await asyncio.gather(sample(), *map(arrive, ingresses))
    return sum(spreads) / len(spreads), await asyncio.gather(*asked)


@pytest.mark.timeout(90)
@pytest.mark.parametrize("ingresses", [2, 4])
def test_several_ingresses_spread_their_streams(pool: Fleet, ingresses: int) -> None:
    """Measured: 1.3 to 1.7; with `random` it is over 5."""
    workers = pool.workers(4, "--status-port", "0", delay_ms=50)
    servers = [pool.ingress("--router-mode", "least-loaded", workers=4) for _ in range(ingresses)]
    found, answers = asyncio.run(spread(servers, [status_url(worker) for worker in workers]))
    assert {answer.error for answer in answers} == {""}
    assert found <= 3
