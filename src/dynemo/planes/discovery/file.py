"""The store in a folder, for the processes of one user on one host.

    DIR/                      the user's; it may hold anything
      dynemo-discovery/       ours, 0700
        made-by-dynemo-run    the marker; see `marked.py`
        lock                  held by a change that depends on more than one lease
        {lease, 16 hex}/      a lease
          .alive              its content is the lease's time, its mtime the last renewal; the owner
                              holds a lock on it, so that its death shows at once
          {hash of key}       a line with the key, then the value
        .new-…, .dead-…       a lease that is being made, or removed

Another user must not be able to exchange any part of the path. Release 0.1 kept its leases in DIR
itself: they are read, and never changed.

A lease has expired if nobody holds its lock (its owner died; shared leases have no lock), or if it
was not renewed in time (its owner is stopped). Files appear and disappear by renaming, so that
nobody sees half of one. A watch polls a few times a second: one `stat` for each lease while nothing
changes.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from itertools import count
from pathlib import Path

from dynemo.errors import Unavailable, UsageError
from dynemo.folders import temporary_folder
from dynemo.planes.discovery.backends import DiscoverySettings
from dynemo.planes.discovery.base import Change
from dynemo.planes.discovery.discovery import LEASE_TTL, Discovery, discovering
from dynemo.planes.discovery.folder import Folder, Scan
from dynemo.spelling import quoted

_POLL_SECONDS = 0.15
_SWEEP = 20  # polls; one of them removes expired leases


class FileStore:
    """See `Store`. Runs `Folder` in threads."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    @property
    def name(self) -> str:
        return f"the folder {quoted(str(self._folder.path))}"

    async def grant(self, ttl: int) -> int:
        with self._translated():
            lease = await asyncio.to_thread(self._folder.grant, ttl)
            await asyncio.to_thread(self._folder.sweep)
            return lease

    async def share(self, lease: int, ttl: int) -> bool:
        with self._translated():
            return await asyncio.to_thread(self._folder.share, lease, ttl)

    async def keep(self, lease: int) -> bool:
        with self._translated():
            return await asyncio.to_thread(self._folder.keep, lease)

    async def revoke(self, lease: int) -> None:
        with self._translated():
            await asyncio.to_thread(self._folder.revoke, lease)

    async def put(self, key: str, value: bytes, lease: int) -> None:
        with self._translated():
            await asyncio.to_thread(self._folder.put, key, value, lease)

    async def add(self, key: str, value: bytes, lease: int) -> None:
        if await self.get(key) is None:
            await self.put(key, value, lease)

    async def claim(self, prefix: str, key: str, value: bytes, lease: int) -> bytes | None:
        with self._translated():
            return await asyncio.to_thread(self._folder.claim, prefix, key, value, lease)

    async def delete(self, key: str, lease: int) -> None:
        with self._translated():
            await asyncio.to_thread(self._folder.delete, key, lease)

    async def get(self, key: str) -> bytes | None:
        with self._translated():
            return await asyncio.to_thread(self._folder.get, key)

    async def keys(self, prefix: str) -> list[str]:
        with self._translated():
            return sorted(await asyncio.to_thread(Scan(self._folder, prefix).keys))

    async def follow(self, prefix: str) -> AsyncGenerator[dict[str, bytes] | list[Change], None]:
        scan = Scan(self._folder, prefix)
        with self._translated():
            known = await asyncio.to_thread(scan.read)
        yield dict(known)
        for turn in count(1):
            await asyncio.sleep(_POLL_SECONDS)
            with self._translated():
                found = await asyncio.to_thread(scan.read)
                if turn % _SWEEP == 0:
                    await asyncio.to_thread(self._folder.sweep)
            changes = [Change(k, v) for k, v in found.items() if known.get(k) != v]
            changes += [Change(k, None) for k in known if k not in found]
            known = found
            if changes:
                yield changes

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Unavailable(f"Cannot use {self.name}: {error.strerror or error}.") from error


def open_backend(settings: DiscoverySettings) -> AbstractAsyncContextManager[Discovery]:
    """A folder on this host. See `backends.py`."""
    try:
        folder = _folder(settings.argument, settings.environment)
    except OSError as error:
        raise UsageError(
            f"Cannot find a folder for discovery: {error.strerror}. Name one with "
            "--discovery file:DIR."
        ) from None
    return open_file(folder, lease_ttl=settings.lease_ttl)


def _folder(argument: str, environment: Mapping[str, str]) -> Path:
    """DIR of `file:DIR`; for `file`, a folder of the user's that does not outlive a reboot."""
    if argument:
        return Path(argument).expanduser()
    runtime = environment.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime) / "dynemo-run" / "discovery"
    return Path(temporary_folder()) / f"dynemo-run-{os.getuid()}" / "discovery"


@contextlib.asynccontextmanager
async def open_file(path: Path, *, lease_ttl: float = LEASE_TTL) -> AsyncIterator[Discovery]:
    """Raises UsageError if our folder cannot be made in `path`, or if other users can reach it."""
    folder = Folder(path)
    try:
        folder.make()
    except OSError as error:
        raise UsageError(
            f"Cannot use {quoted(str(path))} for discovery: {error.strerror}."
        ) from None
    try:
        async with discovering(FileStore(folder), lease_ttl) as found:
            yield found
    finally:
        folder.close()
