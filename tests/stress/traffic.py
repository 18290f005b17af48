"""Paced streams through a balancer over the ingresses, each held against its expected answer."""

import asyncio
import json
import random
import re
import time
import urllib.request
from collections.abc import Sequence

from stress.verdict import Outcome
from support.command import Server
from support.dyn_streams import Answer, ask, prompts

_PROMPTS = prompts(32)
_LENGTHS = (32, 96, 160, 224)
_CHECK_SECONDS = 0.25
_TICK_SECONDS, _STALL_SECONDS = 0.1, 1.0
_WITHOUT = re.compile("shutting down|has just started")


class Balancer:
    """Prefers ingresses whose `/health` says that they serve, as a load balancer does."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls
        self._is_up = [True] * len(urls)
        self._turn = 0

    async def check(self) -> None:
        """Looks at every ingress, forever."""
        while True:
            found = [asyncio.to_thread(_is_healthy, url) for url in self._urls]
            self._is_up = list(await asyncio.gather(*found))
            await asyncio.sleep(_CHECK_SECONDS)

    def order(self) -> list[int]:
        """Returns the ingresses in the order to try them."""
        self._turn += 1
        count = len(self._urls)
        turn = [(self._turn + step) % count for step in range(count)]
        return sorted(turn, key=lambda number: not self._is_up[number])


class Traffic:
    """Keeps a number of streams open. `outcomes` grows while it runs."""

    def __init__(self, urls: Sequence[str], reference: Server, seed: int) -> None:
        self.outcomes: list[Outcome] = []
        self._urls = urls
        self._reference = reference
        self._chance = random.Random(seed)
        self._expected: dict[tuple[int, int], Answer] = {}
        self._balancer = Balancer(urls)
        self._began = time.monotonic()
        self.stalls: list[tuple[float, float]] = []  #: when, and seconds of this program's own

    @property
    def now(self) -> float:
        return time.monotonic() - self._began

    async def learn(self) -> None:
        """Asks the server without faults for every expected answer."""
        for prompt in range(len(_PROMPTS)):
            for length in _LENGTHS:
                answer = await ask(self._reference.url, _PROMPTS[prompt], max_tokens=length)
                assert not answer.error, answer
                self._expected[prompt, length] = answer

    async def run(self, streams: int, seconds: float) -> None:
        """Begins new streams for that time, then waits for the last ones."""
        self._began = time.monotonic()
        tasks = [asyncio.create_task(work) for work in (self._balancer.check(), self._measure())]
        try:
            await asyncio.gather(*(self._client(seconds) for _ in range(streams)))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _measure(self) -> None:
        """Notes when this program gets no CPU: the other processes then get little, too."""
        while True:
            before = self.now
            await asyncio.sleep(_TICK_SECONDS)
            late = self.now - before - _TICK_SECONDS
            if late > _STALL_SECONDS:
                self.stalls.append((before, late))

    async def _client(self, seconds: float) -> None:
        await asyncio.sleep(self._chance.uniform(0, 4))  # not all at once
        while self.now < seconds:
            prompt = self._chance.randrange(len(_PROMPTS))
            length = self._chance.choice(_LENGTHS)
            begin = self.now
            number, answer = await self._ask(_PROMPTS[prompt], length)
            expected = self._expected[prompt, length]
            self.outcomes.append(Outcome(answer, expected, number, begin, self.now))
            if answer.error:
                await asyncio.sleep(0.5)

    async def _ask(self, prompt: str, length: int) -> tuple[int, Answer]:
        """Tries the next ingress if one cannot be reached, or says that it starts or ends."""
        order = self._balancer.order()
        for number in order:
            answer = await ask(self._urls[number], prompt, max_tokens=length)
            if answer.status and not (answer.status == 503 and _WITHOUT.search(answer.error)):
                break
        return number, answer


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return bool(json.load(answer)["status"] == "ok")
    except (OSError, ValueError):
        return False
