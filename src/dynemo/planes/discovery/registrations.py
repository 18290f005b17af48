"""What this process registers, under its one lease.

    asked (ask)             one entry a key says what should be; callers wait until it is tried
    the writer              the only task that writes entries, so that an old value never
                            overtakes a new one: each is written under the current lease
    the lease's keeper      keeps it alive; when it is gone takes a new one, and with that every
                            entry is due again

An entry is due while its `lease` is not the current one. So a lease that is lost in any way (the
store came back without its data; this process was frozen for longer than the lease) needs no case
of its own.
"""

import asyncio
import contextlib
import logging

from dynemo.errors import Unavailable
from dynemo.planes.discovery.base import LeaseLost, Store

log = logging.getLogger("dynemo.discovery")

RETRY_SECONDS = 0.25
_WRITE_SECONDS = 2.0  # that a caller waits for its key; with a longer lease, half of that
_LEAVE_SECONDS = 2.0
_AT_ONCE = 32  # writes in flight


class Registration:
    """What should be at a key. Replaced, never changed, by what is asked later."""

    def __init__(self, value: bytes | None, claims: str = "") -> None:
        self.value = value  # None: nothing
        self.claims = claims  # the prefix that it claims a part of, or empty
        self.lease = 0  # it is written under
        self.refused: bytes | None = None  # the other claimants' value
        self.tried = asyncio.Event()


class Registrations:
    """`keep_lease` and `write` are to run as tasks as long as this is used; then `leave`."""

    def __init__(self, store: Store, ttl: int) -> None:
        self.trouble = ""
        self._store = store
        self._ttl = ttl
        self._lease = 0
        self._entries: dict[str, Registration] = {}
        self._due = asyncio.Event()  # an entry is to be written
        self._doubt = asyncio.Event()  # the lease may be gone

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def doubt(self) -> None:
        """Says that the store was away, so that the lease is looked at now."""
        self._doubt.set()

    def forget(self, key: str, entry: Registration) -> None:
        """Drops an entry that was never written."""
        if self._entries.get(key) is entry:
            del self._entries[key]

    async def ask(self, key: str, entry: Registration) -> None:
        self.replace(key, entry)
        try:
            async with asyncio.timeout(max(_WRITE_SECONDS, self._ttl / 2)):
                await entry.tried.wait()
        except TimeoutError:
            why = self.trouble or f"{self._store.name} does not answer."
            raise Unavailable(f"Cannot register now: {why}") from None

    def replace(self, key: str, entry: Registration) -> None:
        if (old := self._entries.get(key)) is not None:
            old.tried.set()
        self._entries[key] = entry
        self._due.set()

    async def keep_lease(self) -> None:
        while True:
            delay = self._ttl / 3
            try:
                if self._entries:  # who only watches needs no lease
                    await self._renew()
                if self.trouble:
                    log.info("discovery is back")
                self.trouble = ""
            except Unavailable as error:
                if not self.trouble:
                    log.warning("discovery is away: %s", error)
                self.trouble = str(error)
                delay = RETRY_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._doubt.wait()
            self._doubt.clear()

    async def _renew(self) -> None:
        if self._lease and await self._store.keep(self._lease):
            self._retry_refused()
            return
        if self._lease:
            log.warning("the lease was lost; registering again")
        self._lease = 0
        self._lease = await self._store.grant(self._ttl)
        self._due.set()

    def _retry_refused(self) -> None:
        for entry in self._entries.values():
            if entry.refused is not None:
                entry.lease = 0
                self._due.set()

    async def write(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            lease = self._lease
            due = [(k, e) for k, e in self._entries.items() if e.lease != lease or not lease]
            if not due:
                continue
            if not lease:
                self._doubt.set()  # the keeper takes one, and says that entries are due
                continue
            try:
                for start in range(0, len(due), _AT_ONCE):
                    part = due[start : start + _AT_ONCE]
                    tasks = [self._write_one(key, entry, lease) for key, entry in part]
                    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                        if isinstance(outcome, BaseException):
                            raise outcome
            except LeaseLost:
                self._lease = 0 if self._lease == lease else self._lease
                self._due.set()
            except Unavailable:
                self._doubt.set()
                await asyncio.sleep(RETRY_SECONDS)
                self._due.set()

    async def _write_one(self, key: str, entry: Registration, lease: int) -> None:
        if entry.value is None:
            await self._store.delete(key, lease)
            if self._entries.get(key) is entry:
                del self._entries[key]
        elif entry.claims:
            other = await self._store.claim(entry.claims, key, entry.value, lease)
            if other is not None and entry.refused is None and entry.tried.is_set():
                log.error("%s was taken by others while discovery was away", entry.claims[:-1])
            entry.refused = other
        else:
            await self._store.put(key, entry.value, lease)
        entry.lease = lease
        entry.tried.set()

    async def leave(self) -> None:
        if self._lease:
            with contextlib.suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(_LEAVE_SECONDS):
                    await self._store.revoke(self._lease)
