"""A store inside one process, with faults for tests."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from itertools import count
from typing import NamedTuple

from dynemo.errors import Unavailable, UsageError
from dynemo.planes.discovery.base import Change, LeaseLost
from dynemo.planes.discovery.discovery import LEASE_TTL, Discovery, discovering


class _Held(NamedTuple):
    value: bytes
    lease: int


class MemoryStore:
    """Shared by all `open_memory`. Its faults: `disconnect`, `reconnect`, `expire`, `forget`."""

    name = "the memory store"

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._leases: dict[int, tuple[int, float]] = {}  # its time, and when it expires
        self._numbers = count(1 << 62)  # above the shared ones
        self._followers: dict[asyncio.Queue[Change | None], str] = {}
        self._is_away = False

    def disconnect(self) -> None:
        """Every call fails from now on."""
        self._is_away = True
        for follower in self._followers:
            follower.put_nowait(None)  # wakes it

    def reconnect(self) -> None:
        self._is_away = False

    def expire(self) -> None:
        """All leases expire now."""
        for lease in list(self._leases):
            self._drop(lease)

    def forget(self) -> None:
        """All data is lost without a notice to watchers, for a store that is disconnected."""
        self._held.clear()
        self._leases.clear()

    async def grant(self, ttl: int) -> int:
        self._begin()
        lease = next(self._numbers)
        self._leases[lease] = (ttl, time.monotonic() + ttl)
        return lease

    async def share(self, lease: int, ttl: int) -> bool:
        if await self.keep(lease):
            return False
        self._leases[lease] = (ttl, time.monotonic() + ttl)
        return True

    async def keep(self, lease: int) -> bool:
        self._begin()
        if lease not in self._leases:
            return False
        ttl, _ = self._leases[lease]
        self._leases[lease] = (ttl, time.monotonic() + ttl)
        return True

    async def revoke(self, lease: int) -> None:
        self._begin()
        self._drop(lease)

    async def put(self, key: str, value: bytes, lease: int) -> None:
        self._begin()
        if lease not in self._leases:
            raise LeaseLost
        self._held[key] = _Held(value, lease)
        self._notify(Change(key, value))

    async def add(self, key: str, value: bytes, lease: int) -> None:
        self._begin()
        if key not in self._held:
            await self.put(key, value, lease)

    async def claim(self, prefix: str, key: str, value: bytes, lease: int) -> bytes | None:
        self._begin()
        for other, held in self._held.items():
            if other.startswith(prefix) and other != key and held.value != value:
                return held.value
        await self.put(key, value, lease)
        return None

    async def delete(self, key: str, lease: int) -> None:
        self._begin()
        held = self._held.get(key)
        if held is not None and held.lease == lease:
            del self._held[key]
            self._notify(Change(key, None))

    async def get(self, key: str) -> bytes | None:
        self._begin()
        return held.value if (held := self._held.get(key)) is not None else None

    async def keys(self, prefix: str) -> list[str]:
        self._begin()
        return sorted(key for key in self._held if key.startswith(prefix))

    async def follow(self, prefix: str) -> AsyncGenerator[dict[str, bytes] | list[Change], None]:
        self._begin()
        changes: asyncio.Queue[Change | None] = asyncio.Queue()
        self._followers[changes] = prefix
        try:
            yield {k: held.value for k, held in self._held.items() if k.startswith(prefix)}
            while True:
                change: Change | None = None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.1):  # to see leases expire
                        change = await changes.get()
                self._begin()
                if change is not None:
                    yield [change]
        finally:
            del self._followers[changes]

    def _begin(self) -> None:
        if self._is_away:
            raise Unavailable("The memory store does not answer.")
        now = time.monotonic()
        for lease, (_, end) in list(self._leases.items()):
            if end < now:
                self._drop(lease)

    def _drop(self, lease: int) -> None:
        self._leases.pop(lease, None)
        for key in [key for key, held in self._held.items() if held.lease == lease]:
            del self._held[key]
            self._notify(Change(key, None))

    def _notify(self, change: Change) -> None:
        for follower, prefix in self._followers.items():
            if change.key.startswith(prefix):
                follower.put_nowait(change)


@contextlib.asynccontextmanager
async def open_memory(
    store: MemoryStore, *, lease_ttl: float = LEASE_TTL
) -> AsyncIterator[Discovery]:
    """Raises UsageError if the store is disconnected."""
    try:
        await store.keys("/")
    except Unavailable as error:
        raise UsageError(str(error)) from None
    async with discovering(store, lease_ttl) as found:
        yield found
