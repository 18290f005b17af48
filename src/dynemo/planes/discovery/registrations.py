"""The registrations of this process, under its one lease.

    ask              sets one entry for each key: its wanted value; waits until the store had it
    write            the only task that writes entries, each under the current lease, so that an old
                     value never overtakes a new one
    keep_lease       keeps the lease alive; if it has expired, takes a new one, and with that every
                     entry is due again

An entry is due while its `lease` is not the current one. So no way of losing the lease needs a case
of its own: the store came back without its data, or this process was stopped for too long.
"""

import asyncio
import contextlib
import logging

from dynemo.errors import Unavailable
from dynemo.planes.discovery.base import LeaseLost, Store

log = logging.getLogger("dynemo.discovery")

RETRY_SECONDS = 0.25
_WRITE_SECONDS = 2.0  # a caller waits for its key, or half of a longer lease
_LEAVE_SECONDS = 2.0
_AT_ONCE = 32  # writes in flight


class Registration:
    """The wanted value of a key. A later request replaces it and never changes it."""

    def __init__(self, value: bytes | None, claims: str = "") -> None:
        self.value = value  # None: no such key
        self.claims = claims  # the prefix under which it is a claim, or empty
        self.lease = 0  # the lease that it was written with
        self.refused: bytes | None = None  # the other claimants' value
        self.tried = asyncio.Event()


class Registrations:
    """Run `keep_lease` and `write` as tasks while this is in use; then call `leave`."""

    def __init__(self, store: Store, ttl: int) -> None:
        self.trouble = ""
        self._store = store
        self._ttl = ttl
        self._lease = 0
        self._entries: dict[str, Registration] = {}
        self._due = asyncio.Event()  # an entry must be written
        self._doubt = asyncio.Event()  # the lease may have expired

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def doubt(self) -> None:
        """The store did not answer: checks the lease now."""
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
            problem = self.trouble or f"There is no answer from {self._store.name}."
            raise Unavailable(f"Cannot register in discovery now. {problem}") from None

    def replace(self, key: str, entry: Registration) -> None:
        if (old := self._entries.get(key)) is not None:
            old.tried.set()
        self._entries[key] = entry
        self._due.set()

    async def keep_lease(self) -> None:
        while True:
            delay = self._ttl / 3
            try:
                if self._entries:  # a process that only watches needs no lease
                    await self._renew()
                if self.trouble:
                    log.info("Discovery is back.")
                self.trouble = ""
            except Unavailable as error:
                if not self.trouble:
                    log.warning("Discovery does not work now. %s", error)
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
            log.warning("The lease in discovery has expired; registering again.")
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
                self._doubt.set()  # `keep_lease` takes one, and sets `_due`
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
                log.error("Others claimed %s while discovery did not work.", entry.claims[:-1])
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
