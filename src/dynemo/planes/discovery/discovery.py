"""Discovery over any store: what this process registers, and what it sees of the others."""

import asyncio
import contextlib
import logging
import math
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from dynemo.errors import DynemoError, Unavailable
from dynemo.planes.discovery import blobs
from dynemo.planes.discovery.base import Change, Store
from dynemo.planes.discovery.registrations import RETRY_SECONDS, Registration, Registrations
from dynemo.planes.discovery.view import View

log = logging.getLogger("dynemo.discovery")

LEASE_TTL = 10.0
_BLOB_SECONDS = 15.0


class Discovery:
    """Made by `open_etcd`, `open_file` or `open_memory`, and living as long as their context.
    Leaving the context removes all that this process has registered, at once.

    All of it is under one lease: when this process dies, or is frozen for longer than `lease_ttl`
    seconds, the others see its keys gone; when it thaws, it registers them again by itself.
    """

    def __init__(self, store: Store, lease_ttl: float) -> None:
        self._store = store
        self._ttl = max(2, math.ceil(lease_ttl))  # etcd's least
        self._ours = Registrations(store, self._ttl)
        self._blobs: dict[str, bytes] = {}
        self._troubles: dict[object, str] = {}  # of watches
        self._claimant = secrets.token_hex(8)

    @property
    def trouble(self) -> str:
        """Why the store is away now, or empty."""
        return self._ours.trouble or next(iter(self._troubles.values()), "")

    async def put(self, key: str, value: bytes) -> None:
        """Registers `key` until `remove`, or until this process leaves. At most 1 MiB; what may be
        larger goes to `put_blob`.

        Raises Unavailable when it could not be written within half the lease's time (at least
        2 s); it is then written once the store is back, unless it is removed before.
        """
        _check_size(value)
        await self._ours.ask(key, Registration(value))

    async def claim(self, key: str, value: bytes) -> bytes | None:
        """Claims `key` together with everyone who claims it with the same value, atomically. The
        key is taken as long as one of them lives.

        None: it is claimed. Else the value that it is taken with. Raises Unavailable, and then
        nothing is claimed.
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

    async def remove(self, key: str) -> None:
        """Takes back what `put` or `claim` registered; nothing happens when that is not there.

        Raises Unavailable like `put`; it is still done once the store is back.
        """
        for name in (key, self._claim_of(key)):
            if name in self._ours:
                await self._ours.ask(name, Registration(None))

    async def read(self, prefix: str) -> dict[str, bytes]:
        """All there is under `prefix`, now. Raises Unavailable."""
        async with aclosing(self._store.follow(prefix)) as batches:
            listing = await anext(batches)
        assert isinstance(listing, dict)
        return listing

    async def keys(self, prefix: str) -> list[str]:
        """The names of all there is under `prefix`, in order, without what they hold. Raises
        Unavailable."""
        return await self._store.keys(prefix)

    async def watch(self, prefix: str) -> AsyncGenerator[list[Change], None]:
        """First everything under `prefix` (an empty list when there is nothing), then what
        changes, as it does. Does not end by itself, and raises nothing when the store is away:
        then it says nothing, and when the store is back, what has changed meanwhile. What is
        missing then is said to be gone only after one lease's time, in which its owner may
        register it again. Close it with `aclosing`.
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
        """Stores bytes (at most 256 MiB) where all can read them; returns their name, a SHA-256 in
        hex. They stay until a minute after the last process that has put them left; each keeps
        them in its memory as well, to put them again. Raises Unavailable.
        """
        if len(data) > blobs.CHUNK * blobs.MAX_CHUNKS:
            raise DynemoError(f"A blob of {len(data)} bytes is too large for {self._store.name}.")
        digest = blobs.digest_of(data)
        await blobs.keep_blob(self._store, digest, data)
        self._blobs[digest] = data
        return digest

    async def get_blob(self, digest: str) -> bytes:
        """What was put under that name; checked. Raises Unavailable: missing or incomplete."""
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
        """One connection's part of `watch`."""
        now = asyncio.get_running_loop().time
        pending: asyncio.Task[dict[str, bytes] | list[Change]] | None = None
        async with aclosing(self._store.follow(prefix)) as batches:
            try:
                while True:
                    # A task, for waiting must not cancel what it waits for: a batch would be lost.
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
    """One that the store refuses would be tried forever, with the others behind it."""
    if len(value) > blobs.CHUNK:
        raise DynemoError(f"A value of {len(value)} bytes is too large to register.")


@contextlib.asynccontextmanager
async def discovering(store: Store, lease_ttl: float) -> AsyncIterator[Discovery]:
    """A Discovery over a store that answers."""
    found = Discovery(store, lease_ttl)
    tasks = [
        asyncio.create_task(found._ours.keep_lease(), name="discovery lease"),
        asyncio.create_task(found._ours.write(), name="discovery writer"),
        asyncio.create_task(found._keep_blobs(), name="discovery blobs"),
    ]
    for task in tasks:
        task.add_done_callback(_tell)
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
        task.exception()  # seen


def _tell(task: "asyncio.Task[None]") -> None:
    """These tasks end only when they are cancelled; anything else is our own mistake."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("%s ended", task.get_name(), exc_info=error)
