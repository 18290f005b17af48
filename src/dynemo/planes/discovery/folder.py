"""Leases and their keys as files; see `file.py` for the layout. Blocking."""

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from dynemo.planes.discovery.base import LeaseLost

_ALIVE = ".alive"
_LOCK_SECONDS = 2.0
_LEFTOVER_SECONDS = 60.0
_SETTLED_NS = 100_000_000  # much more than the resolution of a file system's times


class Folder:
    """Raises OSError, besides what each method names. Several threads may use it at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._locks: dict[int, int] = {}  # by lease of ours: an open file

    def close(self) -> None:
        for lock in self._locks.values():
            os.close(lock)
        self._locks.clear()

    def grant(self, ttl: int) -> int:
        lease = secrets.randbits(62) | 1 << 62  # above the shared ones
        self._make(lease, ttl, is_owned=True)
        return lease

    def share(self, lease: int, ttl: int) -> bool:
        with self._locked():
            if self.keep(lease):
                return False
            self._remove(lease)
            self._make(lease, ttl, is_owned=False)
            return True

    def keep(self, lease: int) -> bool:
        """A lease may have expired although its folder is still there; it then stays expired."""
        alive = self._of(lease) / _ALIVE
        try:
            if not _is_stale(alive):
                os.utime(alive)
                return True
        except FileNotFoundError:
            pass
        self._unlock(lease)
        return False

    def revoke(self, lease: int) -> None:
        with self._locked():
            self._remove(lease)
        self._unlock(lease)

    def put(self, key: str, value: bytes, lease: int) -> None:
        target = self._of(lease) / _file(key)
        partial = target.with_name(f".{secrets.token_hex(8)}")
        try:
            partial.write_bytes(key.encode() + b"\n" + value)
            partial.replace(target)
        except FileNotFoundError:
            raise LeaseLost from None

    def claim(self, prefix: str, key: str, value: bytes, lease: int) -> bytes | None:
        with self._locked():
            for other, found in Scan(self, prefix).read().items():
                if other != key and found != value:
                    return found
            self.put(key, value, lease)
            return None

    def delete(self, key: str, lease: int) -> None:
        (self._of(lease) / _file(key)).unlink(missing_ok=True)

    def get(self, key: str) -> bytes | None:
        for lease in self.leases():
            with contextlib.suppress(FileNotFoundError):
                return _read(lease / _file(key), key)[1]
        return None

    def leases(self) -> list[Path]:
        """The folders of the leases that have not expired."""
        return [path for path in self._all() if not _has_expired(path)]

    def sweep(self) -> None:
        """Removes expired leases, and those that a process left half made when it died."""
        expired = [path for path in self._all() if _has_expired(path)]
        if expired:
            with self._locked():
                for path in filter(_has_expired, expired):
                    self._remove(int(path.name, 16))
        for path in self.path.glob(".*-*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS:
                    shutil.rmtree(path, ignore_errors=True)

    def _all(self) -> list[Path]:
        return [Path(entry.path) for entry in os.scandir(self.path) if len(entry.name) == 16]

    def _of(self, lease: int) -> Path:
        return self.path / f"{lease:016x}"

    def _make(self, lease: int, ttl: int, *, is_owned: bool) -> None:
        """Makes it under another name first, so that nobody sees it before it is locked."""
        new = self.path / f".new-{secrets.token_hex(8)}"
        new.mkdir(mode=0o700, parents=True)
        alive = new / _ALIVE
        alive.write_text(f"{ttl} {'owned' if is_owned else 'shared'}", encoding="ascii")
        if is_owned:
            self._locks[lease] = os.open(alive, os.O_RDONLY)
            fcntl.flock(self._locks[lease], fcntl.LOCK_EX | fcntl.LOCK_NB)
        new.rename(self._of(lease))

    def _unlock(self, lease: int) -> None:
        if (lock := self._locks.pop(lease, None)) is not None:
            os.close(lock)

    def _remove(self, lease: int) -> None:
        dead = self.path / f".dead-{secrets.token_hex(8)}"
        with contextlib.suppress(FileNotFoundError):
            self._of(lease).rename(dead)
            shutil.rmtree(dead, ignore_errors=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + _LOCK_SECONDS
        try:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)
            yield
        finally:
            os.close(lock)


class Scan:
    """Reads all keys under a prefix, repeatedly; of an unchanged lease it reads only the times."""

    def __init__(self, folder: Folder, prefix: str) -> None:
        self._folder = folder
        self._prefix = prefix
        self._read: dict[Path, tuple[int, dict[str, bytes]]] = {}

    def keys(self) -> list[str]:
        found = []
        for lease in self._folder.leases():
            with contextlib.suppress(FileNotFoundError):
                found += [_read(file, None)[0] for file in _files(lease)]
        return [key for key in found if key.startswith(self._prefix)]

    def read(self) -> dict[str, bytes]:
        found = {}
        for lease in self._folder.leases():
            with contextlib.suppress(FileNotFoundError):  # removed while we read
                changed = lease.stat().st_mtime_ns
                if lease not in self._read or self._read[lease][0] != changed:
                    held = self._values(lease)
                    # Another change may get the same time.
                    is_settled = time.time_ns() - changed > _SETTLED_NS
                    found[lease] = (changed if is_settled else -1, held)
                else:
                    found[lease] = self._read[lease]
        self._read = found
        return {key: value for _, held in found.values() for key, value in held.items()}

    def _values(self, lease: Path) -> dict[str, bytes]:
        pairs = []
        for file in _files(lease):
            with contextlib.suppress(FileNotFoundError):
                pairs.append(_read(file, self._prefix))
        return {key: value for key, value in pairs if key.startswith(self._prefix)}


def _file(key: str) -> str:
    """A file name of a fixed length."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _files(lease: Path) -> list[Path]:
    return [Path(entry.path) for entry in os.scandir(lease) if not entry.name.startswith(".")]


def _read(file: Path, prefix: str | None) -> tuple[str, bytes]:
    """A file's key, and its value if the key starts with `prefix`."""
    with file.open("rb") as stream:
        key = stream.readline().rstrip(b"\n").decode()
        wanted = prefix is not None and key.startswith(prefix)
        return key, stream.read() if wanted else b""


def _is_stale(alive: Path) -> bool:
    """Whether it was not renewed in time. Raises FileNotFoundError."""
    kept = alive.stat().st_mtime
    return time.time() - kept > float(alive.read_text(encoding="ascii").split()[0])


def _has_expired(lease: Path) -> bool:
    alive = lease / _ALIVE
    try:
        if _is_stale(alive):
            return True
        if alive.read_text(encoding="ascii").endswith("shared"):
            return False
        with alive.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        pass
    return True
