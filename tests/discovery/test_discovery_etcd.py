"""The discovery store in a real etcd."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path
from typing import Any

import pytest
import uvloop

from dynemo.errors import UsageError
from dynemo.planes.discovery.discovery import Discovery
from dynemo.planes.discovery.etcd.backend import EtcdSettings, open_etcd, split_endpoints
from dynemo.planes.discovery.etcd.connection import EtcdConnection
from support.discovery_contract import TTL, DiscoveryContract, ProcessContract, Realm, two
from support.discovery_seen import in_loop, watching
from support.etcd_server import EtcdServer, etcd_running
from support.free_ports import free_port
from support.tcp_proxy import TcpProxy


class EtcdRealm:
    def __init__(self, server: EtcdServer) -> None:
        self.server = server

    def open(self, lease_ttl: float = TTL) -> AbstractAsyncContextManager[Discovery]:
        return open_etcd(EtcdSettings((self.server.address,)), lease_ttl=lease_ttl)

    def go_away(self) -> None:
        self.server.kill()

    async def come_back(self, *, with_data: bool = True) -> None:
        if not with_data:
            self.server.forget()
        self.server.start()
        await asyncio.to_thread(self.server.wait)


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdServer]:
    yield from etcd_running()


@pytest.fixture
def realm(etcd: EtcdServer) -> Realm:
    return EtcdRealm(etcd)


@pytest.fixture
def free_address() -> str:
    return f"127.0.0.1:{free_port()}"


class TestEtcd(DiscoveryContract, ProcessContract):
    kind = "etcd"

    @pytest.fixture
    def where(self, etcd: EtcdServer) -> str:
        return etcd.address

    @in_loop
    async def test_compaction_while_cut_off(self, etcd: EtcdServer, prefix: str) -> None:
        async with (
            TcpProxy(etcd.address) as proxy,
            EtcdRealm(etcd).open() as one,
            open_etcd(EtcdSettings((proxy.address,)), lease_ttl=TTL) as other,
            watching(other, prefix) as seen,
        ):
            for key in "abc":
                await one.put(f"{prefix}{key}", b"1")
            await seen.until(lambda: len(seen.state) == 3)
            await proxy.cut()
            await one.put(f"{prefix}a", b"2")
            await one.remove(f"{prefix}b")
            await one.put(f"{prefix}d", b"1")
            await _compact(etcd)
            await proxy.heal()
            wanted = {f"{prefix}a": b"2", f"{prefix}c": b"1", f"{prefix}d": b"1"}
            await seen.until(lambda: seen.state == wanted)

    @in_loop
    async def test_a_listing_that_is_compacted_before_its_watch(
        self, etcd: EtcdServer, prefix: str
    ) -> None:
        async with (
            two(EtcdRealm(etcd)) as (one, other),
            aclosing(other.watch(prefix)) as batches,
        ):
            assert await anext(batches) == []  # the watch itself starts with the next call
            await one.put(f"{prefix}a", b"1")
            await one.put(f"{prefix}a", b"2")
            await _compact(etcd)
            async with asyncio.timeout(5):
                assert [change.value for change in await anext(batches)] == [b"2"]

    @in_loop
    async def test_more_keys_than_a_page(self, etcd: EtcdServer, prefix: str) -> None:
        keys = [f"{prefix}{n}" for n in range(600)]
        await _fill(etcd, keys)
        async with EtcdRealm(etcd).open() as found:
            start = time.monotonic()
            assert await found.read(prefix) == dict.fromkeys(keys, b"1")
            print(f"600 keys read in {time.monotonic() - start:.3f} s")

    @in_loop
    async def test_the_next_endpoint_is_tried(
        self, etcd: EtcdServer, prefix: str, free_address: str
    ) -> None:
        settings = EtcdSettings((free_address, etcd.address))
        async with open_etcd(settings, lease_ttl=TTL) as found:
            await found.put(f"{prefix}a", b"1")
            assert len(await found.read(prefix)) == 1

    @pytest.mark.timeout(40)
    @pytest.mark.parametrize("how", ["cut", "hang"])
    @in_loop
    async def test_an_endpoint_that_fails_is_left(
        self, etcd: EtcdServer, prefix: str, how: str
    ) -> None:
        async with TcpProxy(etcd.address) as proxy, EtcdRealm(etcd).open() as one:
            settings = EtcdSettings((proxy.address, etcd.address))
            async with open_etcd(settings, lease_ttl=6) as other, watching(other, prefix) as seen:
                await other.put(f"{prefix}mine", b"1")
                await seen.until(lambda: seen.state)
                if how == "cut":
                    await proxy.cut()
                else:
                    proxy.hang()
                await one.put(f"{prefix}a", b"1")
                took = await seen.until(lambda: len(seen.state) == 2, 10)
                print(f"{how}: the other endpoint after {took:.2f} s")
                await asyncio.sleep(0.5)
                assert not other.trouble
                assert f"{prefix}mine" in await one.read(prefix)  # its lease was kept alive

    @in_loop
    async def test_unreachable(self, free_address: str) -> None:
        for address in (free_address, "192.0.2.1:2379", "no-such-host.invalid"):
            start = time.monotonic()
            with pytest.raises(UsageError, match=r"services up.*--discovery file") as caught:
                async with open_etcd(EtcdSettings((address,))):
                    pass
            assert time.monotonic() - start < 5  # 3 s, and more on a busy machine
            assert address in str(caught.value)

    @in_loop
    async def test_waiting_for_it(self) -> None:
        server = EtcdServer()
        try:
            asyncio.get_running_loop().call_later(1.0, server.start)
            async with open_etcd(EtcdSettings((server.address,)), wait=10) as found:
                assert not found.trouble
        finally:
            server.close()
        start = time.monotonic()
        with pytest.raises(UsageError):
            async with open_etcd(EtcdSettings((server.address,)), wait=1):
                pass
        assert 0.9 < time.monotonic() - start < 5

    def test_on_uvloop(self, etcd: EtcdServer, prefix: str) -> None:
        async def main() -> None:
            async with two(EtcdRealm(etcd)) as (one, other), watching(other, prefix) as seen:
                await one.put(f"{prefix}a", b"1")
                await seen.until(lambda: seen.state)
                assert len(await other.get_blob(await one.put_blob(bytes(3_000_000)))) == 3_000_000

        uvloop.run(main())


class TestSettings:
    def test_endpoints(self) -> None:
        assert split_endpoints(" a:1, https://b ,") == ("a:1", "https://b")
        names = EtcdConnection(EtcdSettings(("a", "http://b:7/", "[::1]:5"))).where
        assert names == "a:2379, b:7, [::1]:5"

    @pytest.mark.parametrize(
        "wrong",
        [
            {"endpoints": ()},
            {"endpoints": ("ftp://a",)},
            {"endpoints": ("a:port",)},
            {"endpoints": ("https://a", "http://b")},
            {"user": "me"},
            {"cert": Path("cert.pem")},
            {"ca": Path("/nowhere/ca.pem")},
        ],
    )
    def test_invalid_settings_are_refused(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(UsageError):
            EtcdConnection(EtcdSettings(**wrong))

    def test_a_password_is_not_shown(self) -> None:
        assert "secret" not in repr(EtcdSettings(user="me", password="secret"))


async def _fill(etcd: EtcdServer, keys: list[str]) -> None:
    """Writes keys directly to etcd, 100 in one call, because etcd waits for the disk each time."""
    connection = EtcdConnection(EtcdSettings((etcd.address,)))
    rpc = connection.rpc
    puts = [rpc.RequestOp(request_put=rpc.PutRequest(key=key.encode(), value=b"1")) for key in keys]
    try:
        for start in range(0, len(puts), 100):
            request = rpc.TxnRequest(success=puts[start : start + 100])
            await connection.call("KVStub", "Txn", request, seconds=10)
    finally:
        await connection.close()


async def _compact(etcd: EtcdServer) -> None:
    connection = EtcdConnection(EtcdSettings((etcd.address,)))
    rpc = connection.rpc
    try:
        answer = await connection.call("KVStub", "Range", rpc.RangeRequest(key=b"a"))
        request = rpc.CompactionRequest(revision=answer.header.revision, physical=True)
        await connection.call("KVStub", "Compact", request)
    finally:
        await connection.close()
