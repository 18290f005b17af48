"""Detects the end of vLLM's other ranks: vLLM itself would wait a long time in its next step.

The ranks send heartbeats through the store in which they have met. Rank 0's worker keeps it.
"""

import asyncio
import time
from datetime import timedelta
from functools import partial
from typing import Any

_BEAT_SECONDS = 2.0
_SILENT_SECONDS = 20.0


async def leader_lost(address: tuple[str, int], rank: int) -> None:
    """Sends heartbeats of `rank` to the store at `address`. Returns when the store is gone."""
    try:
        store = await _store(address)
        while True:
            await asyncio.to_thread(store.add, _key(rank), 1)
            await asyncio.sleep(_BEAT_SECONDS)
    except RuntimeError:  # torch's own exceptions are RuntimeErrors
        return


async def follower_lost(address: tuple[str, int], nodes: int) -> int:
    """Returns the rank that sent no heartbeat for `_SILENT_SECONDS`, or 0 if the store is gone."""
    heard = {rank: (0, time.monotonic()) for rank in range(1, nodes)}
    try:
        store = await _store(address)
        while True:
            for rank, (count, since) in heard.items():
                now, beats = time.monotonic(), await asyncio.to_thread(store.add, _key(rank), 0)
                if beats != count:
                    heard[rank] = (beats, now)
                elif now - since > _SILENT_SECONDS:
                    return rank
            await asyncio.sleep(_BEAT_SECONDS)
    except RuntimeError:
        return 0


def _key(rank: int) -> str:
    return f"dynemo/rank/{rank}"


async def _store(address: tuple[str, int]) -> Any:
    """Opens another connection to the store. Raises RuntimeError."""
    from torch.distributed import TCPStore

    timeout = timedelta(seconds=_SILENT_SECONDS)
    return await asyncio.to_thread(
        partial(TCPStore, *address, is_master=False, timeout=timeout, wait_for_workers=False)
    )
