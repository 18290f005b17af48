"""The builds of mistral.rs: those for CUDA are files of its release, each for one generation."""

from functools import partial

from dynemo.environments.machine import find_nvidia
from dynemo.environments.variants import PackageSource, Variant
from dynemo.errors import UsageError

_OLDEST_CUDA = (12, 8)
_OLDEST_GPU = 80


def _for_cuda() -> PackageSource:
    nvidia = find_nvidia()
    if nvidia is None:
        raise UsageError(
            "There is one CUDA build of mistralrs for each generation of GPUs, and nvidia-smi "
            "lists no GPU here; install it on the machine that runs it."
        )
    if nvidia.cuda < _OLDEST_CUDA or int(nvidia.capability) < _OLDEST_GPU:
        raise UsageError(
            "The CUDA builds of mistralrs need a driver for CUDA 12.8 or newer and a GPU of "
            "compute capability 8.0 or above; use llama_cpp, which has builds for older ones."
        )
    cuda = "130" if nvidia.cuda >= (13, 0) else "129" if nvidia.capability == "121" else "128"
    return PackageSource(
        "https://github.com/EricLBuehler/mistral.rs/releases/expanded_assets/v0.9.5",
        ("mistralrs",),
        is_index=False,
        build=f"+cuda{cuda}.sm{nvidia.capability}",
    )


_variant = partial(Variant, "mistralrs", file="mistralrs/any.txt")
VARIANTS = (
    _variant("cpu", size=0.1),
    _variant("metal", size=0.1, platform="darwin"),
    _variant("cuda", platform="linux", source=_for_cuda),
)
