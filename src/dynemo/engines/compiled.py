"""The folder in which torch keeps compiled code for the next start of an engine."""

import os
from pathlib import Path

from dynemo.folders import cache_folder

_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def keep_compiled_code(workdir: str) -> None:
    """Sets torch's folder for compiled code, unless the user has set it.

    Torch runs what it finds there. So it must not be a folder of a known name in /tmp: another user
    may have made that.
    """
    if _VARIABLE in os.environ:
        return
    folder = cache_folder() / "torchinductor"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_usable = os.access(folder, os.W_OK)
    except OSError:
        is_usable = False
    os.environ[_VARIABLE] = str(folder if is_usable else Path(workdir) / "torchinductor")
