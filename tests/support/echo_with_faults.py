"""An engine for `out=FILE.py`: like `out=echo`, with faults that words of the prompt cause."""

import asyncio
import os
import time
from collections.abc import AsyncIterator

from dynemo.engine_api import EngineRequest

DELAY = 0.02


async def generate(request: EngineRequest) -> AsyncIterator[int]:
    text = request.prompt
    if "crash at once" in text:
        os._exit(3)
    if "block" in text:
        time.sleep(3600)  # noqa: ASYNC251 (the fault)
    prompt = request.token_ids[: len(request.token_ids) - request.continued]
    ids = [token_id for token_id in prompt if token_id not in request.stop_ids]
    for number, token_id in enumerate(ids[request.continued :]):
        if "crash later" in text and number == 5:
            os._exit(3)
        if "hang" in text and number == 2:
            await asyncio.sleep(3600)
        yield token_id
        await asyncio.sleep(DELAY)
