"""The ranks of one vLLM notice each other's end: vLLM itself waits in its next step, for long.

They tell that they live in the store that they have met in, which rank 0's worker keeps.
"""

import asyncio
import time
from datetime import timedelta
from functools import partial
from typing import Any

_BEAT_SECONDS = 2.0
_SILENT_SECONDS = 20.0


async def leader_lost(address: tuple[str, int], rank: int) -> None:
    """Tells at the store's `address` that `rank` lives, until the store has gone."""
    try:
        store = await _store(address)
        while True:
            await asyncio.to_thread(store.add, _key(rank), 1)
            await asyncio.sleep(_BEAT_SECONDS)
    except RuntimeError:  # torch's own are all of this kind
        return


async def follower_lost(address: tuple[str, int], nodes: int) -> int:
    """Which rank has not told for `_SILENT_SECONDS` that it lives; 0 where the store has gone."""
    heard = {rank: (0, time.monotonic()) for rank in range(1, nodes)}
    try:
        store = await _store(address)
        while True:
            for rank, (count, since) in heard.items():
                now, told = time.monotonic(), await asyncio.to_thread(store.add, _key(rank), 0)
                if told != count:
                    heard[rank] = (told, now)
                elif now - since > _SILENT_SECONDS:
                    return rank
            await asyncio.sleep(_BEAT_SECONDS)
    except RuntimeError:
        return 0


def _key(rank: int) -> str:
    return f"dynemo/rank/{rank}"


async def _store(address: tuple[str, int]) -> Any:
    """One more connection to the store. Raises RuntimeError."""
    from torch.distributed import TCPStore

    timeout = timedelta(seconds=_SILENT_SECONDS)
    return await asyncio.to_thread(
        partial(TCPStore, *address, is_master=False, timeout=timeout, wait_for_workers=False)
    )
