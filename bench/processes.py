"""Reads a process's children, CPU time and memory from the system."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_HAS_PROC = sys.platform == "linux"


def children(pid: int) -> list[int]:
    listed = _ps("-A", "-o", "pid=,ppid=").splitlines()
    pairs = (line.split() for line in listed)
    return [int(child) for child, parent in pairs if int(parent) == pid]


def cpu_seconds(pid: int) -> float:
    """Returns the user and system time of all threads so far, in steps of 10 ms."""
    if _HAS_PROC:
        import os

        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    seconds = 0.0
    for part in _ps("-o", "time=", "-p", str(pid)).strip().replace("-", ":").split(":"):
        seconds = seconds * 60 + float(part)
    return seconds


def resident_bytes(pid: int) -> int:
    """Returns the resident set size (RSS). Shared pages of libraries and files count fully."""
    if _HAS_PROC:
        return _from_proc(pid, "status", "VmRSS:")
    return int(_ps("-o", "rss=", "-p", str(pid))) * 1024


def proportional_bytes(pid: int) -> int | None:
    """Returns the proportional set size (PSS), in which a shared page counts by its share.

    Returns None if the system does not report it.
    """
    try:
        return _from_proc(pid, "smaps_rollup", "Pss:")
    except OSError:
        return None


def _from_proc(pid: int, file: str, name: str) -> int:
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {name} in {file}")


def _ps(*arguments: str) -> str:
    command: Sequence[str] = ("ps", *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
