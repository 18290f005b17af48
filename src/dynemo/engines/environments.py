"""Which Python has an engine."""

import sys
from importlib.util import find_spec
from pathlib import Path

from dynemo.engines.registry import ENGINES, Entry
from dynemo.errors import EngineNotInstalled, UsageError


def find_python(engine: Entry, given: Path | None) -> str:
    """The interpreter to start the engine's host with; `given` is the user's own.

    Raises EngineNotInstalled with the command that installs it, or UsageError.
    """
    if given is not None:
        path = given.expanduser()
        if not path.is_file():
            raise UsageError(f"--engine-python {given} is no file; give the Python of a venv.")
        return str(path.absolute())
    if engine.package and find_spec(engine.package) is None:
        raise EngineNotInstalled(f"{engine.name} is not installed; run `{engine.install}`.")
    return sys.executable


def default_engine(kind: str, given: Path | None) -> Entry:
    """The first engine that reads this kind of model and is installed.

    Raises EngineNotInstalled with the command for the first that would read it.
    """
    problem = None
    for entry in ENGINES.values():
        if kind in entry.reads and entry.is_here and entry.package:
            try:
                find_python(entry, given)
            except EngineNotInstalled as error:
                problem = problem or error
            else:
                return entry
    raise problem or UsageError(
        "This version has no engine for a checkout yet; give a GGUF file of the model, "
        "or out=echo for a dry run."
    )
