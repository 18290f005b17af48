"""The folder that `--discovery file` makes for itself, inside the one that the user names.

The user's folder may hold anything. Ours has a name of its own, mode 0700 and a marker: a file that
is written before everything else. Without the marker, only an empty folder is ours.
"""

import contextlib
import errno
import os
import stat
from pathlib import Path

from dynemo.folders import trusted
from dynemo.spelling import quoted

NAME = "dynemo-discovery"
MARKER = "made-by-dynemo-run"
_TEXT = b"dynemo-run made this folder for --discovery file, and removes what it has put here.\n"


def marked_folder(folder: Path, *, create: bool = False) -> Path:
    """Our folder inside `folder`, checked. `create` makes it.

    Raises OSError; its `strerror` says what is not safe.
    """
    own = trusted(folder, create=create) / NAME
    if create:
        with contextlib.suppress(FileExistsError):
            own.mkdir(mode=0o700)
    status = own.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise _unsafe(f"{quoted(str(own))} is not a folder")
    if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise _unsafe(f"{quoted(str(own))} must belong to you alone (mode 0700)")
    if not _has_marker(own):
        _mark(own)
    return own


def _has_marker(own: Path) -> bool:
    try:
        status = (own / MARKER).lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid()


def _mark(own: Path) -> None:
    """Marks an empty folder. Another process may do the same at this moment."""
    if os.listdir(own) and not _has_marker(own):
        raise _unsafe(f"dynemo-run has not made {quoted(str(own))}; choose another folder")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(FileExistsError):
        marker = os.open(own / MARKER, flags, 0o600)
        try:
            os.write(marker, _TEXT)
        finally:
            os.close(marker)


def _unsafe(clause: str) -> PermissionError:
    return PermissionError(errno.EPERM, clause)
