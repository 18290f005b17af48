"""What `dynemo-run engine install` can make: for each engine and device, a set of requirements.

Each engine has a folder with its sets, every version pinned. `tools/engines/lock.sh` writes those
of engines with many dependencies. What a usual package index lacks is taken from where the
engine's makers put it, unless the user's own configuration of pip finds it already.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dynemo.environments.machine import best_device, find_nvidia, rocm_version
from dynemo.environments.registry import ENGINES
from dynemo.environments.workarounds import SGL_KERNEL, TORCHVISION, Workaround
from dynemo.errors import UsageError

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class PackageSource:
    """Where builds are that the usual index may not have."""

    url: str
    names: tuple[str, ...]  #: of the requirements that are there
    is_index: bool = True  #: else a page with links to wheels
    build: str = ""  #: stands behind their versions


def _no_source() -> None:
    return None


@dataclass(frozen=True)
class Variant:
    engine: str
    device: str
    file: str  #: of its requirements
    size: float = 0  #: GB on the disk, about; 0: nobody has measured it
    platform: str = ""  #: the only one of `sys.platform` that it is for
    is_complete: bool = True  #: the file names all that it needs
    pythons: tuple[str, ...] = ()  #: the only ones with builds; empty: whatever the index has
    source: Callable[[], PackageSource | None] = _no_source
    workarounds: tuple[Workaround, ...] = ()
    besides: str = ""  #: what the user has to install, in a sentence

    @property
    def requirements(self) -> list[str]:
        lines = (_FOLDER / self.file).read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line and not line.startswith("#")]


def _torch_for_cpu() -> PackageSource:
    return PackageSource("https://download.pytorch.org/whl/cpu", ("torch",))


def _torch_for_cuda() -> PackageSource:
    return PackageSource("https://download.pytorch.org/whl/cu130", ("torch", "torchvision"))


def _xllamacpp(build: str) -> PackageSource:
    return PackageSource(f"https://xorbitsai.github.io/xllamacpp/whl/{build}", ("xllamacpp",))


def _xllamacpp_for_cuda() -> PackageSource:
    nvidia = find_nvidia()
    return _xllamacpp("cu132" if nvidia and nvidia.cuda >= (13, 2) else "cu128")


def _xllamacpp_for_rocm() -> PackageSource:
    return _xllamacpp("rocm-6.4.1" if rocm_version() == 6 else "rocm-7.2.4")


def _mistralrs_for_cuda() -> PackageSource:
    """Its wheels are for one generation of GPUs each."""
    nvidia = find_nvidia()
    if nvidia is None:
        raise UsageError(
            "mistralrs has a CUDA build for each generation of GPUs, and nvidia-smi names no GPU "
            "here; install it on the machine that it shall run on."
        )
    if nvidia.cuda < (12, 8) or int(nvidia.capability) < 80:
        raise UsageError(
            "The CUDA builds of mistralrs need a driver for CUDA 12.8 or newer, and a GPU of "
            "compute capability 8.0 or above; llama_cpp has builds for older ones."
        )
    cuda = "130" if nvidia.cuda >= (13, 0) else "129" if nvidia.capability == "121" else "128"
    return PackageSource(
        "https://github.com/EricLBuehler/mistral.rs/releases/expanded_assets/v0.9.5",
        ("mistralrs",),
        is_index=False,
        build=f"+cuda{cuda}.sm{nvidia.capability}",
    )


VARIANTS = (
    Variant("llama_cpp", "cpu", "llama_cpp/any.txt", 0.1),
    Variant("llama_cpp", "metal", "llama_cpp/any.txt", 0.1, "darwin"),
    Variant("llama_cpp", "cuda", "llama_cpp/any.txt", source=_xllamacpp_for_cuda),
    Variant("llama_cpp", "rocm", "llama_cpp/any.txt", platform="linux", source=_xllamacpp_for_rocm),
    Variant("llama_cpp", "vulkan", "llama_cpp/any.txt", source=lambda: _xllamacpp("vulkan")),
    Variant("mistralrs", "cpu", "mistralrs/any.txt", 0.1),
    Variant("mistralrs", "metal", "mistralrs/any.txt", 0.1, "darwin"),
    Variant("mistralrs", "cuda", "mistralrs/any.txt", platform="linux", source=_mistralrs_for_cuda),
    Variant("vllm", "cpu", "vllm/cpu.txt", 2.2, "linux", source=_torch_for_cpu),
    Variant("vllm", "cuda", "vllm/cuda.txt", platform="linux"),
    Variant(
        "sglang", "cpu", "sglang/cpu.txt", 2.8, "linux", source=_torch_for_cpu,
        workarounds=(SGL_KERNEL, TORCHVISION),
    ),
    Variant("sglang", "cuda", "sglang/cuda.txt", platform="linux"),
    Variant(
        "trtllm", "cuda", "trtllm/cuda.txt", platform="linux", is_complete=False,
        pythons=("3.12",), source=_torch_for_cuda,
        besides="It needs Open MPI and the CUDA Toolkit: `apt-get install libopenmpi-dev`.",
    ),
)  # fmt: skip


def find_variant(engine: str, device: str | None) -> Variant:
    """For `device`, or for what this machine has. Raises UsageError."""
    if engine not in ENGINES or not ENGINES[engine].package:
        able = ", ".join(dict.fromkeys(variant.engine for variant in VARIANTS))
        raise UsageError(f"There is nothing to install for {engine}; there is for {able}.")
    found = {variant.device: variant for variant in VARIANTS if variant.engine == engine}
    wanted = device or best_device()
    if wanted not in found:
        if list(found) == ["cuda"]:
            raise UsageError(
                f"{engine} runs only on NVIDIA GPUs: give --device cuda where there is one."
            )
        raise UsageError(
            f"{engine} has environments for --device {', '.join(found)}, and none for {wanted}; "
            "name one that you made yourself with --engine-python."
        )
    variant = found[wanted]
    if variant.platform not in ("", sys.platform):
        name = {"linux": "Linux", "darwin": "macOS"}[variant.platform]
        raise UsageError(f"{engine} for {wanted} is only for {name}.")
    return variant
