"""Leases and their keys as files; see `file.py` for the layout. Blocking."""

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from dynemo.limits import DISCOVERY_VALUE_BYTES
from dynemo.planes.discovery.base import LeaseLost
from dynemo.planes.discovery.marked import marked_folder

_ALIVE = ".alive"
_LOCK_SECONDS = 2.0
_LEFTOVER_SECONDS = 60.0
_SETTLED_NS = 100_000_000  # much more than the resolution of a file system's times
_KEY_BYTES = 4096  # of a file's first line
_MAX_FILE = _KEY_BYTES + DISCOVERY_VALUE_BYTES
_ALIVE_BYTES = 64

# The names that this module makes. It removes nothing else.
_LEASE = re.compile(r"[0-9a-f]{16}")
_LEFTOVER = re.compile(r"\.(?:new|dead)-[0-9a-f]{16}")
_FILE = re.compile(r"[0-9a-f]{32}|\.[0-9a-f]{16}|\.alive")


class Folder:
    """The leases in the marked folder inside `path`. Raises OSError, besides what each method
    names. Several threads may use it at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._locks: dict[int, int] = {}  # by lease of ours: an open file

    def make(self) -> None:
        """Makes the folder, if it is missing."""
        marked_folder(self.path, create=True)

    def close(self) -> None:
        for lock in self._locks.values():
            os.close(lock)
        self._locks.clear()

    def grant(self, ttl: int) -> int:
        lease = secrets.randbits(62) | 1 << 62  # above the shared ones
        self._make(lease, ttl, is_owned=True)
        return lease

    def share(self, lease: int, ttl: int) -> bool:
        self.make()
        with self._locked():
            if self.keep(lease):
                return False
            self._remove(lease)
            self._make(lease, ttl, is_owned=False)
            return True

    def keep(self, lease: int) -> bool:
        """A lease may have expired although its folder is still there; it then stays expired."""
        try:
            alive = self._of(lease) / _ALIVE
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
        try:
            target = self._of(lease) / _file(key)
            partial = target.with_name(f".{secrets.token_hex(8)}")
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
            if (found := _read(lease / _file(key), key)) is not None and found[0] == key:
                return found[1]
        return None

    def leases(self) -> list[Path]:
        """The folders of the leases that have not expired."""
        own = marked_folder(self.path)
        found = [*_named(own, _LEASE), *_leases_of_0_1(own.parent)]
        return [path for path in found if not _has_expired(path)]

    def sweep(self) -> None:
        """Removes expired leases, and those that a process left half made when it died."""
        own = marked_folder(self.path)
        expired = [path for path in _named(own, _LEASE) if _has_expired(path)]
        if expired:
            with self._locked():
                for path in filter(_has_expired, expired):
                    self._remove(int(path.name, 16))
        for path in _named(own, _LEFTOVER):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS:
                    _delete(path)

    def _of(self, lease: int) -> Path:
        return marked_folder(self.path) / f"{lease:016x}"

    def _make(self, lease: int, ttl: int, *, is_owned: bool) -> None:
        """Makes it under another name first, so that nobody sees it before it is locked."""
        new = marked_folder(self.path, create=True) / f".new-{secrets.token_hex(8)}"
        new.mkdir(mode=0o700)
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
        with contextlib.suppress(FileNotFoundError):
            path = self._of(lease)
            dead = path.with_name(f".dead-{secrets.token_hex(8)}")
            path.rename(dead)
            _delete(dead)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        path = marked_folder(self.path) / "lock"
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
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
        files = [file for lease in self._folder.leases() for file in _files(lease)]
        pairs = [pair for file in files if (pair := _read(file, None)) is not None]
        return [key for key, _ in pairs if key.startswith(self._prefix)]

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
        pairs = [pair for file in _files(lease) if (pair := _read(file, self._prefix)) is not None]
        return {key: value for key, value in pairs if key.startswith(self._prefix)}


def _leases_of_0_1(folder: Path) -> list[Path]:
    """The leases of processes of release 0.1, which kept them in the user's folder itself. They are
    read, and never changed."""
    return [path for path in _named(folder, _LEASE) if (path / _ALIVE).is_file()]


def _named(folder: Path, names: re.Pattern[str]) -> list[Path]:
    """The folders in `folder` with such a name that belong to this user. Never links."""
    with os.scandir(folder) as entries:
        named = [entry for entry in entries if names.fullmatch(entry.name)]
    return [Path(entry.path) for entry in named if _is_own_folder(entry)]


def _is_own_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()


def _delete(lease: Path) -> None:
    """Deletes a lease's folder and the files that this module makes in one. Everything else
    stays, and with it the folder."""
    with contextlib.suppress(OSError):
        with os.scandir(lease) as entries:
            files = [entry for entry in entries if _FILE.fullmatch(entry.name)]
        for file in files:
            if file.is_file(follow_symlinks=False):
                os.unlink(file.path)
        lease.rmdir()


def _file(key: str) -> str:
    """A file name of a fixed length."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _files(lease: Path) -> list[Path]:
    with contextlib.suppress(OSError), os.scandir(lease) as entries:
        return [Path(entry.path) for entry in entries if not entry.name.startswith(".")]
    return []


def _read(file: Path, prefix: str | None) -> tuple[str, bytes] | None:
    """A file's key, and its value if the key starts with `prefix`. None for a file that is not
    ours, or that has just been removed."""
    data = _content(file, _KEY_BYTES if prefix is None else _MAX_FILE)
    first, newline, value = data.partition(b"\n")
    if not newline or len(first) > _KEY_BYTES:
        return None
    try:
        key = first.decode()
    except UnicodeDecodeError:
        return None
    wanted = prefix is not None and key.startswith(prefix)
    return key, value if wanted else b""


def _content(file: Path, most: int) -> bytes:
    """At most so many bytes of a regular file. Empty for other files, and for too long ones."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_FILE:
            return b""
        with open(descriptor, "rb", closefd=False) as stream:
            return stream.read(most)
    finally:
        os.close(descriptor)


def _is_stale(alive: Path) -> bool:
    """Whether it was not renewed in time. Raises FileNotFoundError."""
    kept = alive.lstat().st_mtime
    return not time.time() - kept <= _ttl(alive)[0]


def _ttl(alive: Path) -> tuple[float, bool]:
    """Its time in seconds, and whether it is shared. A file that is not ours has no time."""
    match _content(alive, _ALIVE_BYTES).split():
        case [seconds, kind] if seconds.isdigit():
            return float(seconds), kind == b"shared"
    return 0.0, False


def _has_expired(lease: Path) -> bool:
    alive = lease / _ALIVE
    try:
        if _is_stale(alive):
            return True
        if _ttl(alive)[1]:
            return False
        with alive.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True
