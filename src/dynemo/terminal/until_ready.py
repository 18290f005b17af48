"""Waits for a model that cannot take a request now."""

import asyncio
from collections.abc import Callable
from time import monotonic

from dynemo.errors import Unavailable
from dynemo.serving.pipeline import Pipeline
from dynemo.spelling import with_reason

#: Seconds between two checks of the pipeline.
CHECK_SECONDS = 0.05


async def until_ready(
    pipeline: Pipeline,
    error: Unavailable,
    *,
    notify: Callable[[str], None] = lambda _reason: None,
    seconds: float | None = None,
) -> None:
    """Returns when it makes sense to try again after `error`.

    That is when the pipeline has no trouble any more. If it has none now, that is after
    `retry_after` of `error`. `notify` gets each new reason once. Raises Unavailable after
    `seconds`.
    """
    if not pipeline.trouble:
        notify(str(error))
        await asyncio.sleep(error.retry_after)
        return
    deadline = None if seconds is None else monotonic() + seconds
    notified = ""
    while reason := pipeline.trouble:
        if reason != notified:
            notified = reason
            notify(reason)
        if deadline is not None and monotonic() > deadline:
            statement = f"The model was not ready again within {seconds:.0f} s"
            raise Unavailable(with_reason(statement, reason))
        await asyncio.sleep(CHECK_SECONDS)
