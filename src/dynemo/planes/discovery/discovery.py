"""Discovery over any store: what this process registers, and what other processes registered."""

import asyncio
import contextlib
import math
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from dynemo.errors import DynemoError, Unavailable
from dynemo.planes.discovery import blobs
from dynemo.planes.discovery.base import Change, Store
from dynemo.planes.discovery.registrations import RETRY_SECONDS, Registration, Registrations
from dynemo.planes.discovery.view import View
from dynemo.tasks import kept_running

LEASE_TTL = 10.0
_BLOB_SECONDS = 15.0


class Discovery:
    """Made by `open_etcd`, `open_file` or `open_memory`. Leaving their context removes everything
    that this process has registered, at once.

    One lease holds all of it. If this process dies, or is stopped for longer than `lease_ttl`
    seconds, its keys disappear. If it continues later, it registers them again by itself.
    """

    def __init__(self, store: Store, lease_ttl: float) -> None:
        self._store = store
        self._ttl = max(2, math.ceil(lease_ttl))  # 2 is etcd's minimum
        self._ours = Registrations(store, self._ttl)
        self._blobs: dict[str, bytes] = {}
        self._troubles: dict[object, str] = {}  # of watches
        self._claimant = secrets.token_hex(8)

    @property
    def trouble(self) -> str:
        """Why the store does not answer now; else empty."""
        return self._ours.trouble or next(iter(self._troubles.values()), "")

    async def put(self, key: str, value: bytes) -> None:
        """Registers `key` until `remove`, or until this process leaves. At most 1 MiB; larger
        values go to `put_blob`.

        Raises Unavailable if the store has not written it within half the lease's time (at least
        2 s). It is then written when the store is back, unless `remove` comes first.
        """
        _check_size(value)
        await self._ours.ask(key, Registration(value))

    async def claim(self, key: str, value: bytes) -> bytes | None:
        """Claims `key`, atomically, together with all processes that claim it with the same value.
        The key is taken while one of them lives.

        None if the claim holds, else the value that others claimed. Raises Unavailable, and then
        claims nothing.
        """
        _check_size(value)
        name = self._claim_of(key)
        entry = Registration(value, claims=f"{key}/")
        try:
            await self._ours.ask(name, entry)
        except Unavailable:
            self._ours.replace(name, Registration(None))
            raise
        if entry.refused is not None:
            self._ours.forget(name, entry)
        return entry.refused

    async def claim_beside(self, key: str, value: bytes) -> None:
        """Claims `key` whatever others have claimed. Raises Unavailable like `put`."""
        _check_size(value)
        await self._ours.ask(self._claim_of(key), Registration(value))

    async def remove(self, key: str) -> None:
        """Removes what `put` or `claim` registered; does nothing if there is no such key.

        Raises Unavailable like `put`; it is still removed when the store is back.
        """
        for name in (key, self._claim_of(key)):
            if name in self._ours:
                await self._ours.ask(name, Registration(None))

    async def read(self, prefix: str) -> dict[str, bytes]:
        """Everything under `prefix`, now. Raises Unavailable."""
        async with aclosing(self._store.follow(prefix)) as batches:
            listing = await anext(batches)
        assert isinstance(listing, dict)
        return listing

    async def keys(self, prefix: str) -> list[str]:
        """All keys under `prefix`, in order, without their values. Raises Unavailable."""
        return await self._store.keys(prefix)

    async def watch(self, prefix: str) -> AsyncGenerator[list[Change], None]:
        """First everything under `prefix` (an empty list if there is nothing), then each change.

        Does not end by itself, and raises nothing while the store does not answer: it is then
        silent, and gives the changes when the store is back. Keys that are missing then count as
        deleted only after one lease's time, in which their owner may register them again. Close it
        with `aclosing`.
        """
        view = View(self._ttl)
        is_first = True
        token = object()
        try:
            while True:
                try:
                    async with aclosing(self._follow(prefix, view)) as batches:
                        async for changes in batches:
                            self._troubles.pop(token, None)
                            if changes or is_first:
                                is_first = False
                                yield changes
                except Unavailable as error:
                    self._troubles[token] = str(error)
                    self._ours.doubt()
                await asyncio.sleep(RETRY_SECONDS)
        finally:
            self._troubles.pop(token, None)

    async def put_blob(self, data: bytes) -> str:
        """Stores bytes (at most 256 MiB) for all processes; returns their name, a SHA-256 in hex.

        They stay until a minute after the last process that put them has left. Each of them keeps
        the bytes in memory as well, to put them again. Raises Unavailable.
        """
        if len(data) > blobs.CHUNK * blobs.MAX_CHUNKS:
            raise DynemoError(f"A blob of {len(data)} bytes is too large for {self._store.name}.")
        digest = blobs.digest_of(data)
        await blobs.keep_blob(self._store, digest, data)
        self._blobs[digest] = data
        return digest

    async def get_blob(self, digest: str) -> bytes:
        """The bytes of that name, checked. Raises Unavailable if they are missing or incomplete."""
        return await blobs.read_blob(self._store, digest)

    def _claim_of(self, key: str) -> str:
        return f"{key}/{self._claimant}"

    async def _keep_blobs(self) -> None:
        while True:
            await asyncio.sleep(min(_BLOB_SECONDS, self._ttl / 3))
            for digest, data in list(self._blobs.items()):
                with contextlib.suppress(Unavailable):
                    await blobs.keep_blob(self._store, digest, data)

    async def _follow(self, prefix: str, view: View) -> AsyncGenerator[list[Change], None]:
        """The part of `watch` that one connection to the store gives."""
        now = asyncio.get_running_loop().time
        pending: asyncio.Task[dict[str, bytes] | list[Change]] | None = None
        async with aclosing(self._store.follow(prefix)) as batches:
            try:
                while True:
                    # A task: a timeout of `anext` itself would cancel it and lose a batch.
                    pending = pending or asyncio.create_task(_next(batches))
                    await asyncio.wait({pending}, timeout=view.wait(now()))
                    changes: list[Change] = []
                    if pending.done():
                        batch, pending = pending.result(), None
                        changes = (
                            view.refresh(batch, now())
                            if isinstance(batch, dict)
                            else view.apply(batch)
                        )
                    yield changes + view.due(now())
            finally:
                if pending is not None:
                    await _end(pending)


def _check_size(value: bytes) -> None:
    """A value that the store refuses would be tried forever, and block the others."""
    if len(value) > blobs.CHUNK:
        raise DynemoError(f"A value of {len(value)} bytes is too large to register.")


@contextlib.asynccontextmanager
async def discovering(store: Store, lease_ttl: float) -> AsyncIterator[Discovery]:
    """A Discovery over a store that answers."""
    found = Discovery(store, lease_ttl)
    work = {
        "discovery lease": found._ours.keep_lease,
        "discovery writer": found._ours.write,
        "discovery blobs": found._keep_blobs,
    }
    tasks = [asyncio.create_task(kept_running(name, each)) for name, each in work.items()]
    try:
        yield found
    finally:
        for task in tasks:
            await _end(task)
        await found._ours.leave()


async def _next(
    batches: AsyncGenerator[dict[str, bytes] | list[Change], None],
) -> dict[str, bytes] | list[Change]:
    return await anext(batches)


async def _end(task: "asyncio.Task[object] | asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # retrieved, so that asyncio does not log it
