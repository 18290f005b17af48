"""Programs that tests start as separate processes. They may import `support` and `dynemo`."""

import os
import sys
from pathlib import Path

_FOLDER = Path(__file__).parent


def program(name: str) -> str:
    """Returns the path of `tests/support/NAME.py`. Run it with `program_environment()`."""
    return str(_FOLDER / f"{name}.py")


def program_environment() -> dict[str, str]:
    """Returns the environment in which a program can import all that this process can."""
    path = os.pathsep.join([str(_FOLDER.parent), *filter(None, sys.path)])
    return os.environ | {"PYTHONPATH": path}
