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


@pytest.mark.parametrize("size", [1, TRIM_BYTES])
def test_it_is_done_once_more_when_no_more_bytes_come(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory of the last bodies may be in use until then."""
    monkeypatch.setattr(memory, "TRIM_SECONDS", 0.01)
    times: list[int] = []

    async def scenario() -> None:
        arrived = 0
        monkeypatch.setattr(memory, "_trim", lambda: times.append(arrived))
        task = asyncio.create_task(return_small_blocks(lambda: arrived))
        await asyncio.sleep(0.05)
        assert times == []
        arrived = size
        await until(lambda: len(times) == (2 if size == TRIM_BYTES else 1))
        await asyncio.sleep(0.1)
        task.cancel()

    asyncio.run(scenario())
    assert times == [size] * (2 if size == TRIM_BYTES else 1)


def test_large_blocks_can_be_returned_on_any_system() -> None:
    return_large_blocks()
