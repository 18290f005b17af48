"""Tasks that run as long as their owner: a fault must not end them for good."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger("dynemo.tasks")

_FIRST_SECONDS = 0.25
_MOST_SECONDS = 30.0
#: A task that ran for so long without a fault starts again at once.
_HEALTHY_SECONDS = 60.0


async def kept_running(
    name: str, work: Callable[[], Awaitable[None]], on_fault: Callable[[str], None] = lambda _: None
) -> None:
    """Runs `work` again and again, with a growing pause after each fault. Ends by cancellation.

    `on_fault` gets a sentence about each fault. The log has its traceback.
    """
    loop = asyncio.get_running_loop()
    pause = _FIRST_SECONDS
    while True:
        started = loop.time()
        try:
            await work()
        except Exception as error:
            log.exception("The task %s failed. It starts again.", name)
            on_fault(f"The task {name} failed ({type(error).__name__}).")
        if loop.time() - started > _HEALTHY_SECONDS:
            pause = _FIRST_SECONDS
        await asyncio.sleep(pause)
        pause = min(2 * pause, _MOST_SECONDS)
