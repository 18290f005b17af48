"""Waiting for a model that cannot take a request just now."""

import asyncio
from collections.abc import Callable
from time import monotonic

from dynemo.errors import Unavailable
from dynemo.serving.pipeline import Pipeline

#: Seconds between two looks at the pipeline.
LOOK = 0.05


async def until_ready(
    pipeline: Pipeline,
    error: Unavailable,
    *,
    tell: Callable[[str], None] = lambda _reason: None,
    seconds: float | None = None,
) -> None:
    """Return when it is worth asking again after `error`.

    That is when the pipeline is out of trouble; where it has none, after the time that `error`
    names. `tell` is given each reason once, as it changes. Raises Unavailable after `seconds`.
    """
    if not pipeline.trouble:
        tell(str(error))
        await asyncio.sleep(error.retry_after)
        return
    deadline = None if seconds is None else monotonic() + seconds
    told = ""
    while reason := pipeline.trouble:
        if reason != told:
            told = reason
            tell(reason)
        if deadline is not None and monotonic() > deadline:
            raise Unavailable(f"the model did not come back within {seconds:.0f} s: {reason}")
        await asyncio.sleep(LOOK)
