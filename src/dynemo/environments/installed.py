"""The environments that `dynemo-run engine install` makes: where they are, and what they hold.

engines/NAME/cpu-1f2e3d4c/       a virtual environment, named after what was asked to be in it
engines/NAME/environment.json    says which one is in use; written last, so that it is whole
engines/.NAME.lock               held while one is made or removed; stays
"""

from pathlib import Path

from msgspec import DecodeError, Struct, json

from dynemo.folders import data_folder


class Environment(Struct, frozen=True, kw_only=True):
    """What an installation says of itself."""

    engine: str
    version: str
    device: str
    folder: str  #: its name beside the file that says so
    bytes: int  #: on the disk
    workarounds: list[str] = []  #: what was changed in it for it to run, in sentences


def home_of(engine: str) -> Path:
    """The folder of all that belongs to this engine's environment; it need not exist."""
    return data_folder() / "engines" / engine


def environment_file(engine: str) -> Path:
    return home_of(engine) / "environment.json"


def read_environment(engine: str) -> Environment | None:
    """What is installed for this engine; None where nothing is, or where it cannot be read."""
    try:
        return json.decode(environment_file(engine).read_bytes(), type=Environment)
    except (OSError, DecodeError):
        return None


def python_of(environment: Environment) -> Path:
    """Its interpreter, which is gone where the Python that it was made with is."""
    return home_of(environment.engine) / environment.folder / "bin" / "python"
