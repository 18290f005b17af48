"""The store in etcd."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

from dynemo.connection.logged_peers import LoggedPeers
from dynemo.connection.tls import server_files
from dynemo.errors import Unavailable, UsageError
from dynemo.limits import DISCOVERY_BYTES, DISCOVERY_KEYS
from dynemo.planes.discovery.backends import DiscoverySettings
from dynemo.planes.discovery.base import ROOT, Change, LeaseLost, Refused
from dynemo.planes.discovery.discovery import LEASE_TTL, Discovery, discovering
from dynemo.planes.discovery.etcd.connection import EtcdConnection, EtcdSettings, split_endpoints

__all__ = ["EtcdSettings", "EtcdStore", "open_etcd", "split_endpoints"]

log = logging.getLogger("dynemo.discovery")

_REACH_SECONDS = 2.5
_RETRY_SECONDS = 0.25
_PAGE = 256  # keys; a record is a few kB, and a message of more than 32 MiB is refused


class EtcdStore:
    """See `Store`."""

    def __init__(self, connection: EtcdConnection) -> None:
        self._connection = connection
        self._rpc = connection.rpc
        self._full = LoggedPeers()  # prefixes

    @property
    def name(self) -> str:
        return f"etcd at {self._connection.where}"

    async def probe(self, seconds: float) -> None:
        """Raises what a call would raise, after waiting that long for each endpoint."""
        request = self._rpc.RangeRequest(key=ROOT.encode())
        await self._connection.call("KVStub", "Range", request, seconds=seconds)

    async def grant(self, ttl: int) -> int:
        request = self._rpc.LeaseGrantRequest(TTL=ttl)
        return int((await self._connection.call("LeaseStub", "LeaseGrant", request)).ID)

    async def share(self, lease: int, ttl: int) -> bool:
        if await self.keep(lease):
            return False
        request = self._rpc.LeaseGrantRequest(TTL=ttl, ID=lease)
        try:
            await self._connection.call("LeaseStub", "LeaseGrant", request)
        except Refused:
            if await self.keep(lease):  # another process was first
                return False
            raise
        return True

    async def keep(self, lease: int) -> bool:
        request = self._rpc.LeaseKeepAliveRequest(ID=lease)
        try:
            answer = await self._connection.ask_stream("LeaseStub", "LeaseKeepAlive", request)
        except LeaseLost:
            return False
        return bool(answer.TTL > 0)

    async def revoke(self, lease: int) -> None:
        with contextlib.suppress(LeaseLost):
            request = self._rpc.LeaseRevokeRequest(ID=lease)
            await self._connection.call("LeaseStub", "LeaseRevoke", request)

    async def put(self, key: str, value: bytes, lease: int) -> None:
        await self._connection.call("KVStub", "Put", self._put(key, value, lease))

    async def add(self, key: str, value: bytes, lease: int) -> None:
        rpc = self._rpc
        is_absent = rpc.Compare(
            key=key.encode(), target=rpc.Compare.CREATE, result=rpc.Compare.EQUAL, create_revision=0
        )
        put = rpc.RequestOp(request_put=self._put(key, value, lease))
        await self._txn([is_absent], [put], [])

    async def claim(self, prefix: str, key: str, value: bytes, lease: int) -> bytes | None:
        """Two nested comparisons: a comparison of values fails if there are no keys."""
        rpc = self._rpc
        others = {"key": prefix.encode(), "range_end": _end_of(prefix)}
        equal = rpc.Compare.EQUAL
        is_free = rpc.Compare(**others, target=rpc.Compare.CREATE, result=equal, create_revision=0)
        is_same = rpc.Compare(**others, target=rpc.Compare.VALUE, result=equal, value=value)
        put = rpc.RequestOp(request_put=self._put(key, value, lease))
        listing = rpc.RequestOp(request_range=rpc.RangeRequest(**others))
        joined = rpc.TxnRequest(compare=[is_same], success=[put], failure=[listing])
        answer = await self._txn([is_free], [put], [rpc.RequestOp(request_txn=joined)])
        if answer.succeeded or answer.responses[0].response_txn.succeeded:
            return None
        found = answer.responses[0].response_txn.responses[0].response_range.kvs
        others_values = [kv.value for kv in found if kv.key != key.encode()]
        if others_values:
            return bytes(others_values[0])
        await self.put(key, value, lease)  # the only key was an older one of ours
        return None

    async def delete(self, key: str, lease: int) -> None:
        rpc = self._rpc
        is_ours = rpc.Compare(
            key=key.encode(), target=rpc.Compare.LEASE, result=rpc.Compare.EQUAL, lease=lease
        )
        request = rpc.DeleteRangeRequest(key=key.encode())
        await self._txn([is_ours], [rpc.RequestOp(request_delete_range=request)], [])

    async def get(self, key: str) -> bytes | None:
        request = self._rpc.RangeRequest(key=key.encode())
        answer = await self._connection.call("KVStub", "Range", request)
        return bytes(answer.kvs[0].value) if answer.kvs else None

    async def keys(self, prefix: str) -> list[str]:
        found, _ = await self._range(prefix, keys_only=True)
        return list(found)

    async def follow(self, prefix: str) -> AsyncGenerator[dict[str, bytes] | list[Change], None]:
        listing, revision = await self._range(prefix)
        yield listing
        request = self._rpc.WatchRequest(
            create_request=self._rpc.WatchCreateRequest(
                key=prefix.encode(),
                range_end=_end_of(prefix),
                start_revision=revision + 1,
                fragment=True,
            )
        )
        answers = self._connection.stream("WatchStub", "Watch", request)
        async with contextlib.aclosing(answers):
            async for answer in answers:
                if answer.canceled:  # compacted in the meantime, or no longer allowed
                    raise Unavailable(
                        f"etcd at {self._connection.where} ended a watch: {answer.cancel_reason}."
                    )
                if changes := [each for event in answer.events if (each := _change(event))]:
                    yield changes

    def _put(self, key: str, value: bytes, lease: int) -> Any:
        return self._rpc.PutRequest(key=key.encode(), value=value, lease=lease)

    async def _txn(self, compare: list[Any], success: list[Any], failure: list[Any]) -> Any:
        request = self._rpc.TxnRequest(compare=compare, success=success, failure=failure)
        return await self._connection.call("KVStub", "Txn", request)

    async def _range(self, prefix: str, *, keys_only: bool = False) -> tuple[dict[str, bytes], int]:
        """Everything under a prefix at one revision, read in pages."""
        found: dict[str, bytes] = {}
        start, revision, size = prefix.encode(), 0, 0
        while True:
            request = self._rpc.RangeRequest(
                key=start,
                range_end=_end_of(prefix),
                revision=revision,
                limit=_PAGE,
                keys_only=keys_only,
            )
            answer = await self._connection.call("KVStub", "Range", request)
            revision = revision or answer.header.revision
            for kv in answer.kvs:
                if (key := _text(kv.key)) is not None:
                    found[key] = kv.value
                    size += len(kv.value)
            is_full = len(found) >= DISCOVERY_KEYS or size >= DISCOVERY_BYTES
            if is_full and self._full.is_new(prefix):
                log.error("Reads only a part of %s: too many keys under %s.", self.name, prefix)
            if is_full or not answer.more:
                return found, revision
            start = answer.kvs[-1].key + b"\0"


def _change(event: Any) -> Change | None:
    is_delete = event.type == 1
    key = _text(event.kv.key)
    return None if key is None else Change(key, None if is_delete else event.kv.value)


def _text(key: bytes) -> str | None:
    """None for a key that is not text, and so not ours."""
    try:
        return key.decode()
    except UnicodeDecodeError:
        return None


def _end_of(prefix: str) -> bytes:
    """The first key after all keys with the prefix; UTF-8 has no byte 0xff."""
    start = prefix.encode()
    return start[:-1] + bytes([start[-1] + 1])


def open_backend(settings: DiscoverySettings) -> AbstractAsyncContextManager[Discovery]:
    """etcd at the servers of --etcd. See `backends.py`."""
    folder = settings.tls if "https://" in settings.servers else None
    ca, cert, key = server_files(settings.environment, "ETCD", folder)
    etcd = EtcdSettings(
        endpoints=split_endpoints(settings.servers),
        user=settings.environment.get("ETCD_AUTH_USERNAME", ""),
        password=settings.environment.get("ETCD_AUTH_PASSWORD", ""),
        ca=ca,
        cert=cert,
        key=key,
    )
    return open_etcd(etcd, lease_ttl=settings.lease_ttl, wait=settings.wait)


@contextlib.asynccontextmanager
async def open_etcd(
    settings: EtcdSettings, *, lease_ttl: float = LEASE_TTL, wait: float = 0.0
) -> AsyncIterator[Discovery]:
    """Raises UsageError: at once if etcd refuses our credentials; within 3 s, or after `wait`
    seconds of retries, if no endpoint answers."""
    connection = EtcdConnection(settings)
    try:
        store = EtcdStore(connection)
        await _reach(store, connection, wait, _REACH_SECONDS / len(settings.endpoints))
        async with discovering(store, lease_ttl) as found:
            yield found
    finally:
        await connection.close()


async def _reach(store: EtcdStore, connection: EtcdConnection, wait: float, seconds: float) -> None:
    try:
        async with asyncio.timeout(max(wait, _REACH_SECONDS)):
            while True:
                try:
                    await store.probe(seconds)
                    return
                except Refused as error:
                    raise UsageError(str(error)) from None
                except Unavailable:
                    if trouble := await connection.tls_trouble():
                        raise UsageError(trouble) from None
                    if not wait:
                        break
                await asyncio.sleep(_RETRY_SECONDS)
    except TimeoutError:
        pass
    raise UsageError(
        f"etcd at {connection.where} does not answer. Start one with `dynemo-run services up`, "
        "name another with --etcd, or use --discovery file on one host."
    )
