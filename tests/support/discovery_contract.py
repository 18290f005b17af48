"""The contract of all discovery stores. To use it, subclass it with a `realm` fixture."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    aclosing,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from typing import Protocol

import pytest

from dynemo.errors import DynemoError, Unavailable
from dynemo.planes.discovery.base import BLOBS, Change, identity_key
from dynemo.planes.discovery.discovery import Discovery
from support.discovery_seen import in_loop, watching
from support.program import program, program_environment

TTL = 2.0
MEMBER = program("discovery_member")


class Realm(Protocol):
    """One store, and the faults that a test can cause in it."""

    def open(self, lease_ttl: float = TTL) -> AbstractAsyncContextManager[Discovery]: ...

    def go_away(self) -> None: ...

    async def come_back(self, *, with_data: bool = True) -> None: ...


@asynccontextmanager
async def two(realm: Realm, ttl: float = TTL) -> AsyncIterator[tuple[Discovery, Discovery]]:
    async with realm.open(ttl) as one, realm.open(ttl) as other:
        yield one, other


class DiscoveryContract:
    @pytest.fixture
    def prefix(self, request: pytest.FixtureRequest) -> str:
        return f"/dynemo/{request.node.name}-{time.time_ns()}/"

    @in_loop
    async def test_existing_and_new_keys(self, realm: Realm, prefix: str) -> None:
        async with two(realm) as (one, other):
            await one.put(f"{prefix}a", b"1")
            async with watching(other, prefix) as seen:
                assert seen.batches == [[Change(f"{prefix}a", b"1")]]
                await one.put(f"{prefix}b", b"\0\xff")
                await one.put(f"{prefix}a", b"2")
                await seen.until(
                    lambda: seen.state == {f"{prefix}a": b"2", f"{prefix}b": b"\0\xff"}
                )
                assert await other.read(prefix) == seen.state

    @in_loop
    async def test_the_first_batch_may_be_empty(self, realm: Realm, prefix: str) -> None:
        async with realm.open() as found, watching(found, prefix) as seen:
            assert seen.batches == [[]]

    @in_loop
    async def test_a_value_of_1_mib_and_no_more(self, realm: Realm, prefix: str) -> None:
        async with realm.open() as found:
            await found.put(f"{prefix}a", bytes(1 << 20))
            assert await found.read(prefix) == {f"{prefix}a": bytes(1 << 20)}
            with pytest.raises(DynemoError, match="too large"):
                await found.put(f"{prefix}a", bytes((1 << 20) + 1))

    @in_loop
    async def test_only_the_prefix_is_seen(self, realm: Realm, prefix: str) -> None:
        async with two(realm) as (one, other), watching(other, f"{prefix}pool/") as seen:
            await one.put(f"{prefix}pool2/a", b"1")
            await one.put(f"{prefix}pool/%2F", b"1")
            await seen.until(lambda: seen.state)
            assert list(seen.state) == [f"{prefix}pool/%2F"]

    @in_loop
    async def test_removal(self, realm: Realm, prefix: str) -> None:
        async with two(realm) as (one, other), watching(other, prefix) as seen:
            await one.put(f"{prefix}a", b"1")
            await seen.until(lambda: seen.state)
            await one.remove(f"{prefix}a")
            await one.remove(f"{prefix}never")
            await seen.until(lambda: not seen.state)
            await one.put(f"{prefix}a", b"1")
            await seen.until(lambda: seen.state)

    @in_loop
    async def test_leaving_removes_all_at_once(self, realm: Realm, prefix: str) -> None:
        async with realm.open() as other, watching(other, prefix) as seen:
            async with realm.open(60) as one:
                await one.put(f"{prefix}a", b"1")
                await one.claim(f"{prefix}b", b"1")
                await seen.until(lambda: len(seen.state) == 2)
            await seen.until(lambda: not seen.state)  # long before its lease expires

    @in_loop
    async def test_two_watchers_of_a_burst(self, realm: Realm, prefix: str) -> None:
        wanted = {f"{prefix}{n}": str(n).encode() for n in range(500)}
        async with (
            two(realm, 60) as (one, other),  # a long lease: the writes may take 30 s
            watching(other, prefix) as first,
            watching(one, prefix) as second,
        ):
            await asyncio.gather(*[one.put(key, value) for key, value in wanted.items()])
            await first.until(lambda: first.state == wanted)
            await second.until(lambda: second.state == wanted)
            async with watching(other, prefix) as late:
                assert late.state == wanted

    @in_loop
    async def test_the_last_of_many_values_stays(self, realm: Realm, prefix: str) -> None:
        async with two(realm) as (one, other), watching(other, prefix) as seen:
            puts = [one.put(f"{prefix}a", str(n).encode()) for n in range(50)]
            await asyncio.gather(*puts)
            await seen.until(lambda: seen.state == {f"{prefix}a": b"49"})
            assert await other.read(prefix) == seen.state

    @in_loop
    async def test_a_closed_watch_leaves_no_task(self, realm: Realm, prefix: str) -> None:
        async with realm.open() as found:
            before = len(asyncio.all_tasks())
            async with aclosing(found.watch(prefix)) as batches:
                await anext(batches)
                waiting = asyncio.ensure_future(batches.__anext__())
                await asyncio.sleep(0.05)
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
            await asyncio.sleep(0.05)
            assert len(asyncio.all_tasks()) <= before

    @in_loop
    async def test_claims_of_one_value_are_shared(self, realm: Realm, prefix: str) -> None:
        key = f"{prefix}{identity_key('ns', 'a/b')}"
        async with realm.open() as third:
            async with realm.open() as second:
                async with realm.open() as first:
                    assert await first.claim(key, b"one") is None
                    assert await first.claim(key, b"one") is None
                    assert await second.claim(key, b"one") is None
                    assert await third.claim(key, b"two") == b"one"
                assert await third.claim(key, b"two") == b"one"  # the second still holds the claim
            assert await third.claim(key, b"two") is None
            assert await third.claim(key, b"three") is None  # nobody holds the claim
            await third.remove(key)
            assert await third.read(prefix) == {}

    @in_loop
    async def test_one_of_many_claims_wins(self, realm: Realm, prefix: str) -> None:
        async with two(realm) as (one, other):
            for turn in range(10):
                key = f"{prefix}{turn}"
                claims = one.claim(key, b"1"), other.claim(key, b"2")
                said = list(await asyncio.gather(*claims))
                assert said in ([None, b"1"], [b"2", None])

    @in_loop
    async def test_a_blob_of_20_mb(self, realm: Realm, prefix: str) -> None:
        data = os.urandom(20_000_000)
        async with realm.open() as other:
            async with realm.open() as one:
                digest = await one.put_blob(data)
                assert await one.put_blob(data) == digest
                assert await other.get_blob(digest) == data
                assert len(await other.read(f"{BLOBS}{digest}/")) == 20
            assert await other.get_blob(digest) == data  # the blob stays for a while
            assert await other.get_blob(await other.put_blob(b"")) == b""
            with pytest.raises(Unavailable, match="missing"):
                await other.get_blob("0" * 64)
            with pytest.raises(DynemoError, match="too large"):
                await other.put_blob(bytes(257 << 20))

    @in_loop
    async def test_many_put_one_blob(self, realm: Realm, prefix: str) -> None:
        data = os.urandom(3_000_000)
        async with two(realm) as (one, other):
            digests = await asyncio.gather(*[d.put_blob(data) for d in (one, other, one, other)])
            assert await one.get_blob(digests[0]) == data

    @pytest.mark.timeout(40)
    @pytest.mark.parametrize("with_data", [True, False])
    @in_loop
    async def test_away_and_back(self, realm: Realm, prefix: str, with_data: bool) -> None:
        data = os.urandom(1_500_000)
        async with two(realm) as (one, other), watching(other, prefix) as seen:
            await one.put(f"{prefix}a", b"1")
            assert await one.claim(f"{prefix}model", b"x") is None
            digest = await one.put_blob(data)
            await seen.until(lambda: len(seen.state) == 2)
            known = dict(seen.state)
            realm.go_away()
            late = asyncio.create_task(one.put(f"{prefix}b", b"2"))
            await asyncio.sleep(1.0)
            assert one.trouble
            assert other.trouble
            with pytest.raises(Unavailable):
                await other.read(prefix)
            assert seen.state == known
            await realm.come_back(with_data=with_data)
            start = time.monotonic()
            with suppress(Unavailable):  # after a timeout the write still happens
                await late
            await seen.until(lambda: seen.state == {**known, f"{prefix}b": b"2"}, 2 * TTL)
            assert await other.read(prefix) == seen.state
            print(f"healed in {time.monotonic() - start:.2f} s")
            assert all(value for batch in seen.batches for _, value in batch)  # no key has gone
            await asyncio.sleep(TTL + 0.5)
            assert len(seen.state) == 3
            assert not one.trouble
            assert not other.trouble
            assert await other.claim(f"{prefix}model", b"y") == b"x"
            assert await other.get_blob(digest) == data

    @pytest.mark.timeout(40)
    @in_loop
    async def test_lost_keys_go_after_a_grace(self, realm: Realm, prefix: str) -> None:
        async with realm.open() as other, watching(other, prefix) as seen:
            async with realm.open() as one:
                await one.put(f"{prefix}a", b"1")
                await other.put(f"{prefix}b", b"1")
                await seen.until(lambda: len(seen.state) == 2)
                realm.go_away()
                await asyncio.sleep(0.3)
            await realm.come_back(with_data=False)
            took = await seen.until(lambda: list(seen.state) == [f"{prefix}b"], 5 * TTL)
            assert took > TTL / 2

    @pytest.mark.timeout(30)
    @in_loop
    async def test_a_put_while_away_is_done_later(self, realm: Realm, prefix: str) -> None:
        async with two(realm) as (one, other), watching(other, prefix) as seen:
            realm.go_away()
            puts = [one.put(f"{prefix}a", b"1"), one.claim(f"{prefix}b", b"1")]
            for outcome in await asyncio.gather(*puts, return_exceptions=True):
                assert isinstance(outcome, Unavailable)
                assert "Cannot register in discovery now" in str(outcome)
            await realm.come_back()
            await seen.until(lambda: seen.state)
            await asyncio.sleep(0.5)
            assert list(seen.state) == [f"{prefix}a"]


@contextmanager
def member(kind: str, where: str, key: str) -> "Iterator[subprocess.Popen[bytes]]":
    process = subprocess.Popen(
        [sys.executable, MEMBER, kind, where, key, str(TTL)],
        stdout=subprocess.PIPE,
        env=program_environment(),
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


class ProcessContract:
    """The contract of stores that other processes can reach.

    `where` is the store as its backend gets it: as the argument, or as the servers.
    """

    kind: str

    @pytest.mark.timeout(30)
    @in_loop
    async def test_a_killed_process_is_gone(self, realm: Realm, where: str, prefix: str) -> None:
        async with realm.open() as found, watching(found, prefix) as seen:
            with member(self.kind, where, f"{prefix}a") as process:
                await seen.until(lambda: seen.state)
                process.kill()
                took = await seen.until(lambda: not seen.state, 4 * TTL)
                print(f"gone after {took:.2f} s")

    @pytest.mark.timeout(30)
    @in_loop
    async def test_a_frozen_process_comes_back(self, realm: Realm, where: str, prefix: str) -> None:
        async with realm.open() as found, watching(found, prefix) as seen:
            with member(self.kind, where, f"{prefix}a") as process:
                await seen.until(lambda: seen.state)
                process.send_signal(signal.SIGSTOP)
                took = await seen.until(lambda: not seen.state, 4 * TTL)
                process.send_signal(signal.SIGCONT)
                back = await seen.until(lambda: seen.state, 4 * TTL)
                print(f"gone after {took:.2f} s, back after {back:.2f} s")
                await asyncio.sleep(TTL + 0.5)
                assert seen.state
