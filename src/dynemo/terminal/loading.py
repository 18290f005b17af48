"""Shows the progress while a model loads."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from dynemo.terminal.status_line import StatusLine, amount, status_line

_TICK = 0.5


@asynccontextmanager
async def loading_shown(
    name: str, ready: "asyncio.Future[Any]", read: Callable[[], int], total: int
) -> AsyncIterator[None]:
    """Shows the progress until `ready` is done.

    `read` returns how many of the `total` bytes are loaded, or 0 if unknown. It may block.
    """
    with status_line() as line:
        task = asyncio.create_task(_show(line, name, read, total), name="loading")

        def stop(_: Any) -> None:
            task.cancel()
            line.clear()

        ready.add_done_callback(stop)
        try:
            yield
        finally:
            ready.remove_done_callback(stop)
            task.cancel()
            await asyncio.wait([task])


async def _show(line: StatusLine, name: str, read: Callable[[], int], total: int) -> None:
    while True:
        await asyncio.sleep(_TICK)
        if line.is_due():
            count = await asyncio.to_thread(read)
            parts = [f"loading {name}", amount(count, total), f"{line.seconds} s"]
            line.show(" · ".join(part for part in parts if part))
