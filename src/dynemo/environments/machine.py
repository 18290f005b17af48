"""What this machine computes on, as far as it shows without an engine."""

import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Nvidia:
    """Of the first GPU."""

    cuda: tuple[int, int]  #: the newest CUDA that the driver runs
    capability: str  #: its compute capability without the dot: 89


def best_device() -> str:
    """The device that most people would want an engine for here."""
    if sys.platform == "darwin":
        return "metal" if platform.machine() == "arm64" else "cpu"
    if find_nvidia() is not None:
        return "cuda"
    return "rocm" if os.path.exists("/dev/kfd") else "cpu"


def find_nvidia() -> Nvidia | None:
    """None where nvidia-smi is missing or names no GPU."""
    capability = re.match(r"(\d+)\.(\d+)", _ask("--query-gpu=compute_cap", "--format=csv,noheader"))
    cuda = re.search(r"CUDA Version: (\d+)\.(\d+)", _ask())
    if capability is None or cuda is None:
        return None
    return Nvidia((int(cuda[1]), int(cuda[2])), capability[1] + capability[2])


def rocm_version() -> int:
    """The major version of ROCm; 0 where none is installed."""
    try:
        with open("/opt/rocm/.info/version", encoding="ascii") as file:
            return int(file.read().split(".")[0])
    except (OSError, ValueError):
        return 0


def _ask(*options: str) -> str:
    try:
        return subprocess.run(
            ["nvidia-smi", *options], capture_output=True, text=True, timeout=20, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
