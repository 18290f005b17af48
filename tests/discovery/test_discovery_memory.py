from contextlib import AbstractAsyncContextManager

import pytest

from dynemo.errors import UsageError
from dynemo.planes.discovery.discovery import Discovery
from dynemo.planes.discovery.memory import MemoryStore, open_memory
from support.discovery_contract import TTL, DiscoveryContract, Realm
from support.discovery_seen import in_loop, watching


class MemoryRealm:
    def __init__(self) -> None:
        self.store = MemoryStore()

    def open(self, lease_ttl: float = TTL) -> AbstractAsyncContextManager[Discovery]:
        return open_memory(self.store, lease_ttl=lease_ttl)

    def go_away(self) -> None:
        self.store.disconnect()

    async def come_back(self, *, with_data: bool = True) -> None:
        if not with_data:
            self.store.forget()
        self.store.reconnect()


class TestMemory(DiscoveryContract):
    @pytest.fixture
    def realm(self) -> Realm:
        return MemoryRealm()

    @in_loop
    async def test_an_expired_lease_is_replaced(self, prefix: str) -> None:
        store = MemoryStore()
        async with open_memory(store, lease_ttl=TTL) as found, watching(found, prefix) as seen:
            await found.put(f"{prefix}a", b"1")
            await seen.until(lambda: seen.state)
            store.expire()
            await seen.until(lambda: not seen.state)
            await seen.until(lambda: seen.state, TTL)

    @in_loop
    async def test_away_at_open(self) -> None:
        store = MemoryStore()
        store.disconnect()
        with pytest.raises(UsageError):
            async with open_memory(store):
                pass
