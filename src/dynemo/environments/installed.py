"""The environments that `dynemo-run engine install` makes.

engines/NAME/cpu-1f2e3d4c/       a virtual environment, named after a hash of its requirements
engines/NAME/environment.json    names the environment in use; written last, when it is complete
engines/.NAME.lock               held while an environment is made or removed; never deleted
"""

from pathlib import Path

from msgspec import DecodeError, Struct

from dynemo.folders import data_folder
from dynemo.foreign import decode_json


class Environment(Struct, frozen=True, kw_only=True):
    """The record that `engine install` writes of an environment."""

    engine: str
    version: str
    device: str
    folder: str  #: the name of its folder, beside this file
    bytes: int  #: its size on the disk
    workarounds: list[str] = []  #: what had to change before it ran, in sentences


def home_of(engine: str) -> Path:
    """The folder of the engine's environments. It need not exist."""
    return data_folder() / "engines" / engine


def environment_file(engine: str) -> Path:
    return home_of(engine) / "environment.json"


def read_environment(engine: str) -> Environment | None:
    """The environment in use; None if there is none, or if its file cannot be read."""
    try:
        return decode_json(environment_file(engine).read_bytes(), Environment)
    except (OSError, DecodeError):
        return None


def python_of(environment: Environment) -> Path:
    """Its interpreter, a link that breaks if the Python it was made with is removed."""
    return home_of(environment.engine) / environment.folder / "bin" / "python"
