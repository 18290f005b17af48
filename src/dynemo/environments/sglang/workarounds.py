"""Changes to SGLang's environment without which it does not run on a CPU."""

from pathlib import Path

from dynemo.environments.variants import Workaround

_STAND_IN = '''\
"""A stand-in: no build of sgl-kernel for the CPU is published. Names import; calling one raises."""

__version__ = "0.0.0+stand.in"


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*args, **kwargs):
        raise NotImplementedError(f"sgl_kernel.{name} has no build for the CPU")

    return missing
'''


def _add_stand_in(site: Path) -> None:
    package = site / "sgl_kernel"
    package.mkdir()
    (package / "__init__.py").write_text(_STAND_IN)


def _quiet_torchvision(site: Path) -> None:
    """Removes two imports: their modules register kernels of a library that the CPU build of torch
    does not load."""
    module = site / "torchvision" / "__init__.py"
    lines = module.read_text(encoding="utf-8").splitlines(keepends=True)
    removed = {"_autograd_registrations,", "_meta_registrations,"}
    kept = "".join(line for line in lines if line.strip() not in removed)
    module.write_text(kept, encoding="utf-8")


SGL_KERNEL = Workaround(
    "sgl_kernel is a stand-in: no build of it for the CPU is published, and its kernels, which "
    "need AMX, are not reached.",
    _add_stand_in,
)
TORCHVISION = Workaround(
    "torchvision is its CUDA build with two imports removed: a text model does not use it, and it "
    "would not load beside the CPU build of torch.",
    _quiet_torchvision,
)
