"""The environments that `dynemo-run engine install` can make: requirements by engine and device.

Each engine's folder has its sets, every version pinned, and `variants.py`, which lists them.
`tools/engines/lock.sh` writes these sets with the hashes of their files. A build that the usual
package index lacks comes from its maker's index, unless the user's pip is configured to find it;
it has no hash, because each platform has another file there.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from dynemo.environments.machine import best_device
from dynemo.environments.registry import ENGINES
from dynemo.errors import UsageError
from dynemo.spelling import quoted

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Workaround:
    """A change to an environment that was not made for this machine.

    `engine install`, `engine list --json` and `engine doctor` name it, so that nobody mistakes the
    results of such an environment for those of the engine's own build.
    """

    text: str  #: one sentence
    apply: Callable[[Path], None]  #: to the site-packages


@dataclass(frozen=True)
class PackageSource:
    """The place of builds that the usual index may lack."""

    url: str
    names: tuple[str, ...]  #: the requirements that are there
    is_index: bool = True  #: else a page with links to wheels
    build: str = ""  #: follows their versions


def _usual_index() -> None:
    return None


@dataclass(frozen=True)
class Variant:
    engine: str
    device: str
    file: str  #: its requirements
    size: float = 0  #: about how many GB on the disk; 0: not measured
    platform: str = ""  #: the only `sys.platform` that it is for
    is_complete: bool = True  #: the file lists every dependency
    pythons: tuple[str, ...] = ()  #: the only versions with builds; empty: whatever the index has
    source: Callable[[], PackageSource | None] = _usual_index
    workarounds: tuple[Workaround, ...] = ()
    besides: str = ""  #: what the user has to install, in a sentence

    @property
    def requirements(self) -> list[str]:
        """One line for each package: its version, its marker, and the hashes of its files."""
        text = (_FOLDER / self.file).read_text(encoding="utf-8").replace(" \\\n", " ")
        lines = (" ".join(line.split()) for line in text.splitlines())
        return [line for line in lines if line and not line.startswith("#")]


def torch_for_cpu() -> PackageSource:
    return PackageSource("https://download.pytorch.org/whl/cpu", ("torch",))


def variants_of(engine: str) -> tuple[Variant, ...]:
    """Empty for an engine that is a part of this package."""
    if not ENGINES[engine].package:
        return ()
    found: tuple[Variant, ...] = import_module(f"dynemo.environments.{engine}.variants").VARIANTS
    return found


def find_variant(engine: str, device: str | None) -> Variant:
    """The one for `device`, by default for what this machine has. Raises UsageError."""
    found = {variant.device: variant for variant in variants_of(engine)}
    if not found:
        able = ", ".join(name for name, entry in ENGINES.items() if entry.package)
        raise UsageError(
            f"{engine} is a part of dynemo-run and needs no installation; choose one of {able}."
        )
    wanted = device or best_device()
    if wanted not in found:
        if list(found) == ["cuda"]:
            raise UsageError(
                f"{engine} runs only on NVIDIA GPUs; use --device cuda on a machine that has one."
            )
        raise UsageError(
            f"{engine} has no environment for --device {quoted(wanted)}; choose one of "
            f"{', '.join(found)}, or give --engine-python with an environment of your own."
        )
    variant = found[wanted]
    if variant.platform not in ("", sys.platform):
        name = {"linux": "Linux", "darwin": "macOS"}[variant.platform]
        raise UsageError(f"{engine} for {wanted} is only for {name}.")
    return variant
