"""Freed memory goes back to the system."""

import asyncio
import platform
from pathlib import Path

import pytest

from dynemo.http import memory
from dynemo.http.memory import return_large_blocks, return_small_blocks
from dynemo.limits import TRIM_BYTES
from support.waiting import until

MB = 2**20


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_free_pages_between_used_ones_go_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "TRIM_SECONDS", 0.01)

    async def scenario() -> None:
        arrived = 0
        task = asyncio.create_task(return_small_blocks(lambda: arrived))
        blocks = [b"%d" % number + b"a" * 2000 for number in range(50_000)]
        kept = blocks[::100]
        blocks.clear()
        full = resident()
        await asyncio.sleep(0.1)
        assert full - resident() < 20 * MB  # nothing has arrived
        arrived = TRIM_BYTES
        await until(lambda: full - resident() > 50 * MB)
        assert len(kept) == 500
        task.cancel()

    asyncio.run(scenario())


def test_large_blocks_can_be_returned_on_any_system() -> None:
    return_large_blocks()
