"""Waiting for conditions that have no event."""

import asyncio
import time
from collections.abc import Callable


def wait_until(condition: Callable[..., object], seconds: float = 10) -> None:
    """Fails if `condition()` does not become true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "It did not happen in time."
        time.sleep(0.02)


async def until(condition: Callable[..., object], seconds: float = 10) -> None:
    """Like `wait_until`, for a coroutine."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
