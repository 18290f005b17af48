"""The builds of xllamacpp: PyPI has those for a CPU and for Metal, its own indexes the others."""

from functools import partial

from dynemo.environments.machine import find_nvidia, rocm_version
from dynemo.environments.variants import PackageSource, Variant


def _index(build: str) -> PackageSource:
    return PackageSource(f"https://xorbitsai.github.io/xllamacpp/whl/{build}", ("xllamacpp",))


def _for_cuda() -> PackageSource:
    nvidia = find_nvidia()
    return _index("cu132" if nvidia and nvidia.cuda >= (13, 2) else "cu128")


def _for_rocm() -> PackageSource:
    return _index("rocm-6.4.1" if rocm_version() == 6 else "rocm-7.2.4")


_variant = partial(Variant, "llama_cpp", file="llama_cpp/any.txt")
VARIANTS = (
    _variant("cpu", size=0.1),
    _variant("metal", size=0.1, platform="darwin"),
    _variant("cuda", source=_for_cuda),
    _variant("rocm", platform="linux", source=_for_rocm),
    _variant("vulkan", source=partial(_index, "vulkan")),
)
