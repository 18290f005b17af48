"""A cluster of three etcd members. If one is killed, all registrations stay."""

import asyncio
import shutil
from collections.abc import Iterator

import pytest

from dynemo.errors import Unavailable
from dynemo.planes.discovery.discovery import Discovery
from dynemo.planes.discovery.etcd.backend import EtcdSettings, open_etcd
from dynemo.planes.discovery.etcd.connection import EtcdConnection
from support.discovery_contract import TTL
from support.discovery_seen import in_loop, watching
from support.etcd_server import EtcdServer


@pytest.fixture
def members() -> Iterator[list[EtcdServer]]:
    if shutil.which("etcd") is None:
        pytest.skip("etcd is not installed")
    members = [EtcdServer() for _ in range(3)]
    try:
        for member in members:
            member.join(members)
            member.start()
        for member in members:
            member.wait()
        yield members
    finally:
        for member in members:
            member.close()


async def _leader(members: list[EtcdServer]) -> EtcdServer:
    for member in members:
        connection = EtcdConnection(EtcdSettings((member.address,)))
        try:
            request = connection.rpc.StatusRequest()
            answer = await connection.call("MaintenanceStub", "Status", request, seconds=5)
        finally:
            await connection.close()
        if answer.leader == answer.header.member_id:
            return member
    raise AssertionError("there is no leader")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("asks", ["it", "another"])
@pytest.mark.parametrize("victim", ["the leader", "a follower"])
@in_loop
async def test_a_member_is_killed(members: list[EtcdServer], victim: str, asks: str) -> None:
    """`asks` says whether the clients are connected to the victim or to another member."""
    leader = await _leader(members)
    gone = leader if victim == "the leader" else next(m for m in members if m is not leader)
    others = [member.address for member in members if member is not gone]
    endpoints = (gone.address, *others) if asks == "it" else (*others, gone.address)
    settings = EtcdSettings(endpoints)
    prefix = "/dynemo/cluster/"
    async with (
        open_etcd(settings, lease_ttl=TTL) as one,
        open_etcd(settings, lease_ttl=TTL) as other,
        watching(other, prefix) as seen,
    ):
        await one.put(f"{prefix}a", b"1")
        await seen.until(lambda: seen.state)
        await asyncio.to_thread(gone.kill)
        await _put(one, f"{prefix}b", b"2")
        took = await seen.until(lambda: len(seen.state) == 2)
        print(f"seen {took:.2f} s after it was written")
        async with open_etcd(settings, lease_ttl=TTL, wait=10) as new:
            assert await new.read(prefix) == seen.state
        await asyncio.sleep(2 * TTL)
        assert seen.state == {f"{prefix}a": b"1", f"{prefix}b": b"2"}
        assert all(value for batch in seen.batches for _, value in batch)  # no key has gone
        assert not one.trouble
        assert not other.trouble


async def _put(found: Discovery, key: str, value: bytes) -> None:
    """Writes a key. After a timeout, `put` raises an error, but the write still happens."""
    began = asyncio.get_running_loop().time()
    try:
        await found.put(key, value)
    except Unavailable as error:
        print(error)
    print(f"put took {asyncio.get_running_loop().time() - began:.2f} s")
