"""The devices of this machine, as far as they can be found without an engine."""

import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Nvidia:
    """The first NVIDIA GPU."""

    cuda: tuple[int, int]  #: the newest version of CUDA that the driver supports
    capability: str  #: the compute capability without its dot: `89`


def best_device() -> str:
    """The fastest device of this machine."""
    if sys.platform == "darwin":
        return "metal" if platform.machine() == "arm64" else "cpu"
    if find_nvidia() is not None:
        return "cuda"
    return "rocm" if os.path.exists("/dev/kfd") else "cpu"


def find_nvidia() -> Nvidia | None:
    """None if nvidia-smi is missing or lists no GPU."""
    query = ("--query-gpu=compute_cap", "--format=csv,noheader")
    capability = re.match(r"(\d+)\.(\d+)", _nvidia_smi(*query))
    cuda = re.search(r"CUDA Version: (\d+)\.(\d+)", _nvidia_smi())
    if capability is None or cuda is None:
        return None
    return Nvidia((int(cuda[1]), int(cuda[2])), capability[1] + capability[2])


def rocm_version() -> int:
    """The major version of ROCm; 0 if it is not installed."""
    try:
        with open("/opt/rocm/.info/version", encoding="ascii") as file:
            return int(file.read().split(".")[0])
    except (OSError, ValueError):
        return 0


def _nvidia_smi(*options: str) -> str:
    """Runs it and returns its output; empty if it fails."""
    try:
        return subprocess.run(
            ["nvidia-smi", *options], capture_output=True, text=True, timeout=20, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
