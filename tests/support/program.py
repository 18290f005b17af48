"""Programs that tests start as processes of their own; they may import `support` and `dynemo`."""

import os
import sys
from pathlib import Path

_FOLDER = Path(__file__).parent


def program(name: str) -> str:
    """The path of `tests/support/NAME.py`, to be run with `program_environment()`."""
    return str(_FOLDER / f"{name}.py")


def program_environment() -> dict[str, str]:
    """This process's environment, with all that this process can import on the path."""
    path = os.pathsep.join([str(_FOLDER.parent), *filter(None, sys.path)])
    return os.environ | {"PYTHONPATH": path}
