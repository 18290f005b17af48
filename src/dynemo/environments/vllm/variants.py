from dynemo.environments.variants import Variant, torch_for_cpu

VARIANTS = (
    Variant("vllm", "cpu", "vllm/cpu.txt", 2.2, "linux", source=torch_for_cpu),
    Variant("vllm", "cuda", "vllm/cuda.txt", platform="linux"),
)
