"""The folders in which dynemo-run keeps a user's files, and the check that no other user can
replace what is in a folder."""

import contextlib
import errno
import json
import os
import stat
import tempfile
from pathlib import Path

_MAX_LINKS = 40
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def data_folder() -> Path:
    """The folder for engine environments and for the data of servers. It need not exist."""
    return _base("XDG_DATA_HOME", ".local/share")


def cache_folder() -> Path:
    """The folder for files that can be made again. It need not exist."""
    return _base("XDG_CACHE_HOME", ".cache")


def home_folder() -> Path:
    """The user's home. A user without one gets Debian's name for that: a path that does not exist,
    so that reads find nothing, and writes fail with a reason."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/nonexistent")


def _base(variable: str, below_home: str) -> Path:
    folder = os.environ.get(variable)
    return (Path(folder) if folder else home_folder() / below_home) / "dynemo-run"


def temporary_folder() -> str:
    """The folder for temporary files. Raises OSError; its `strerror` says that there is none."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        reason = "no folder for temporary files can be written"
        raise OSError(errno.ENOSPC, reason) from None


def trusted(path: Path, *, create: bool = False) -> Path:
    """The folder without links in its path. `create` makes what is missing, with mode 0700, but
    not what a link names.

    Every folder and link in the path must belong to this user or to the system. No other user may
    write to a folder, unless it has the sticky bit, as /tmp has. Each part is checked before the
    next one, so that nobody can exchange a part that has been checked.

    Raises OSError; its `strerror` names the part that is not safe.
    """
    place = Path("/")
    # In some containers, the files of root have another number.
    owners = {0, os.getuid(), _checked(place, None).st_uid}
    pending = [(name, create) for name in reversed(path.absolute().parts[1:])]
    links = 0
    while pending:
        name, may_create = pending.pop()
        if name == "..":
            place = place.parent
            continue
        status = _status(place / name, create=may_create)
        if not stat.S_ISLNK(status.st_mode):
            place /= name
            _checked(place, owners)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if status.st_uid not in owners:
            raise _unsafe(f"the link {_quoted(place / name)} belongs to another user")
        target = Path(os.readlink(place / name))
        is_absolute = target.is_absolute()
        pending += [(each, False) for each in reversed(target.parts[is_absolute:])]
        place = Path("/") if is_absolute else place
    return place


def _status(path: Path, *, create: bool) -> os.stat_result:
    try:
        return path.lstat()
    except FileNotFoundError:
        if not create:
            raise
    with contextlib.suppress(FileExistsError):  # another process was first
        path.mkdir(mode=0o700)
    return path.lstat()


def _checked(place: Path, owners: set[int] | None) -> os.stat_result:
    """The status of a real folder. `owners` None: any owner is right."""
    status = place.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, f"{_quoted(place)} is not a folder")
    if owners is not None and status.st_uid not in owners:
        raise _unsafe(f"{_quoted(place)} belongs to another user")
    if status.st_mode & _WRITABLE_BY_OTHERS and not status.st_mode & stat.S_ISVTX:
        raise _unsafe(
            f"other users can write to {_quoted(place)}; "
            f"run `chmod go-w` on it, or choose another folder"
        )
    return status


def _quoted(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False)


def _unsafe(clause: str) -> PermissionError:
    return PermissionError(errno.EPERM, clause)
