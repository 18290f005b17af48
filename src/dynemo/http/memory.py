"""Gives freed memory back to the system, which glibc would keep. Elsewhere it does nothing."""

import asyncio
import contextlib
import ctypes
import gc
from collections.abc import Callable

from dynemo.limits import TRIM_BYTES, TRIM_SECONDS

_M_MMAP_THRESHOLD = -3  # of glibc's mallopt
_LARGE = 128 * 1024


def return_large_blocks() -> None:
    """Makes each freed block of 128 kB or more go back at once.

    glibc begins so, and stops with the first large block that is freed. It then keeps some 50 MB
    after a few large bodies.
    """
    with contextlib.suppress(OSError, AttributeError):  # macOS and musl have no mallopt
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)


async def return_small_blocks(arrived: Callable[[], int]) -> None:
    """Gives back the free pages of the heap after many bytes, or once no more come. Never ends.

    `arrived` counts the bytes of all bodies so far. Small blocks leave free pages between others:
    2,000 clients that leave in the middle of a body left 150 MB.
    """
    trimmed = settled = seen = 0  # bytes at the last trim, at the last one while idle, last time
    while True:
        await asyncio.sleep(TRIM_SECONDS)
        now = arrived()
        is_idle = now == seen
        seen = now
        if is_idle:
            # The trim before may have come while the last bodies were in use.
            is_due, settled = now != settled, now
        else:
            is_due = now - trimmed >= TRIM_BYTES
        if is_due:
            trimmed = now
            await asyncio.to_thread(_trim)


def _trim() -> None:
    """Runs in a thread, because it may take some 50 ms. ctypes releases Python's lock.

    An error and its traceback are a cycle, which may hold a large body until the collector runs.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
