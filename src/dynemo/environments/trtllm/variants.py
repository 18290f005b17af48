from dynemo.environments.variants import PackageSource, Variant


def _torch_for_cuda() -> PackageSource:
    return PackageSource("https://download.pytorch.org/whl/cu130", ("torch", "torchvision"))


VARIANTS = (
    Variant(
        "trtllm", "cuda", "trtllm/cuda.txt", platform="linux", is_complete=False,
        pythons=("3.12",), source=_torch_for_cuda,
        besides="It needs Open MPI and the CUDA Toolkit: `apt-get install libopenmpi-dev`.",
    ),
)  # fmt: skip
