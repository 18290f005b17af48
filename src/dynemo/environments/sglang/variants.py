from dynemo.environments.sglang.workarounds import SGL_KERNEL, TORCHVISION
from dynemo.environments.variants import Variant, torch_for_cpu

VARIANTS = (
    Variant(
        "sglang", "cpu", "sglang/cpu.txt", 2.8, "linux", source=torch_for_cpu,
        workarounds=(SGL_KERNEL, TORCHVISION),
    ),
    Variant("sglang", "cuda", "sglang/cuda.txt", platform="linux"),
)  # fmt: skip
