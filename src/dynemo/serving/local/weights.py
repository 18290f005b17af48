"""How much of a model's files an engine has read, measured from outside the engine.

It counts the resident part of mapped files and the position in open files; of each file the largest
value so far. Without /proc, it knows nothing.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


class WeightsProgress:
    """`pid` leads the session of all processes of the engine."""

    def __init__(self, pid: int, model: Path) -> None:
        self._pid = pid
        self._model = model
        self._sizes: dict[str, int] = {}
        self._seen: dict[str, int] = {}

    def read(self) -> int:
        """Bytes so far; never shrinks."""
        if not self._sizes:
            folder = self._model if self._model.is_dir() else self._model.parent
            # A cache may hold symbolic links; /proc names their targets.
            with contextlib.suppress(OSError):  # a folder that we may not list
                self._sizes = {str(p.resolve()): p.stat().st_size for p in _weights(folder)}
        for pid in _session(self._pid):
            now: dict[str, int] = {}
            for path, count in (*_mapped(pid), *_opened(pid)):
                if path in self._sizes:
                    now[path] = now.get(path, 0) + count
            for path, count in now.items():
                most = max(count, self._seen.get(path, 0))
                self._seen[path] = min(most, self._sizes[path])
        return sum(self._seen.values())


def _weights(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.suffix in (".gguf", ".safetensors", ".bin") and path.is_file():
            yield path


def _session(leader: int) -> list[int]:
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if name.isdecimal():
            with (
                contextlib.suppress(OSError, ValueError, IndexError),
                open(f"/proc/{name}/stat") as f,
            ):
                if int(f.read().rpartition(")")[2].split()[3]) == leader:
                    found.append(int(name))
    return found


def _mapped(pid: int) -> list[tuple[str, int]]:
    """Files, and the bytes of them that are in the process's memory."""
    found = []
    path = ""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps", errors="replace") as maps:
        for line in maps:
            if line.startswith("Rss:"):
                if path:
                    found.append((path, int(line.split()[1]) * 1024))
            elif line[0] in "0123456789abcdef":
                path = line[line.index("/") :].rstrip() if "/" in line else ""
    return found


def _opened(pid: int) -> list[tuple[str, int]]:
    """Files, and the read position in each."""
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                path = os.readlink(f"/proc/{pid}/fd/{name}")
                with open(f"/proc/{pid}/fdinfo/{name}") as info:
                    found.append((path, int(info.readline().split()[1])))
    return found
