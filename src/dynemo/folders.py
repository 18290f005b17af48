"""The folders in which dynemo-run keeps a user's files."""

import os
from pathlib import Path


def data_folder() -> Path:
    """The folder for engine environments and for the data of servers. It need not exist."""
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "dynemo-run"
