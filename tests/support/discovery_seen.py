"""Records what a watcher of discovery receives, and runs tests that are coroutines."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Any

from dynemo.planes.discovery.base import Change
from dynemo.planes.discovery.discovery import Discovery


class Seen:
    """The changes that one watcher received: all batches, and the resulting state."""

    def __init__(self) -> None:
        self.state: dict[str, bytes] = {}
        self.batches: list[list[Change]] = []
        self._news = asyncio.Event()

    def take(self, batch: list[Change]) -> None:
        self.batches.append(batch)
        for key, value in batch:
            if value is None:
                del self.state[key]  # fails if the key is removed twice
            else:
                assert self.state.get(key) != value, "the watcher received the same value twice"
                self.state[key] = value
        self._news.set()

    async def until(self, is_so: Callable[[], object], seconds: float = 10.0) -> float:
        """Waits until `is_so()` holds. Returns the seconds that it took."""
        now = asyncio.get_running_loop().time
        start = now()
        try:
            async with asyncio.timeout(seconds):
                while not is_so():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"not in {seconds} s; state {list(self.state)[:9]}") from None
        return now() - start


@asynccontextmanager
async def watching(found: Discovery, prefix: str) -> AsyncIterator[Seen]:
    """Watches a prefix. It is entered once the first batch has arrived."""
    seen = Seen()

    async def watch() -> None:
        async with aclosing(found.watch(prefix)) as batches:
            async for batch in batches:
                seen.take(batch)

    task = asyncio.create_task(watch())
    try:
        await seen.until(lambda: seen.batches or task.done())
        yield seen
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def in_loop(
    test: Callable[..., Coroutine[Any, Any, None]],
) -> Callable[..., None]:
    """Runs a test that is a coroutine in its own event loop, in debug mode."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs), debug=True)

    return run
