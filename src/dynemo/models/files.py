"""Reads the files of a model, which may come from anybody.

A model is a folder, or a file that the user named. Its files may be links within the folder or into
the Hub's cache, where a snapshot consists of links. A link to anywhere else is refused: it could
read any file of this user into a prompt, or wait for ever at a pipe.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dynemo.errors import ModelError
from dynemo.limits import MODEL_TEXT_BYTES

#: Files of these kinds are read by this program or by an engine.
_READ = (
    ".json", ".jinja", ".safetensors", ".gguf", ".bin", ".pt", ".pth", ".model", ".txt", ".py",
    ".engine", ".tiktoken",
)  # fmt: skip
#: The demo model came with this package.
_DEMO = Path(os.path.realpath(__file__)).parent / "demo"


def open_model_file(path: Path, *, is_named: bool = False) -> BinaryIO:
    """Opens a regular file, without waiting for anything else. Raises ModelError.

    `is_named`: the user named this very file, so it may be a link to anywhere.
    """
    if not is_named:
        check_link(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not path.is_symlink():
            raise ModelError(f'"{path}" does not exist. Check the path.') from None
        raise ModelError(f'"{path}" cannot be read: {error.strerror or error}.') from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        what = "is a folder" if stat.S_ISDIR(mode) else "is not a regular file"
        raise ModelError(f'"{path}" {what}. Pass a complete copy of the model.')
    return os.fdopen(descriptor, "rb")


def read_model_file(path: Path, most: int = MODEL_TEXT_BYTES) -> bytes:
    """Returns the content of a regular file of at most `most` bytes. Raises ModelError."""
    with open_model_file(path) as file:
        try:
            data = file.read(most + 1)
        except OSError as error:
            raise ModelError(f'"{path}" cannot be read: {error.strerror or error}.') from None
    if len(data) > most:
        raise ModelError(
            f'"{path}" has more than {most:,} bytes, which no such file needs. Download it again.'
        )
    return data


def check_folder(folder: Path) -> None:
    """Raises ModelError for a link that leaves the folder, and for pipes, sockets and devices.

    It checks the files that an engine may read by itself.
    """
    for entry in _entries(folder):
        path = Path(entry.path)
        if entry.is_symlink():
            check_link(path)
        try:
            mode = entry.stat().st_mode
        except OSError:
            continue  # a dangling link: no engine can read it
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise ModelError(f'"{path}" is not a regular file. Pass a complete copy of the model.')


def check_link(path: Path) -> None:
    """Raises ModelError if the file is elsewhere than in its folder or in the Hub's cache."""
    folder = path.parent
    try:
        target = Path(os.path.realpath(path))
        roots = [Path(os.path.realpath(folder)), *_caches(folder), _DEMO]
    except OSError as error:
        raise ModelError(f'"{path}" cannot be read: {error.strerror or error}.') from None
    if not any(target.is_relative_to(root) for root in roots):
        raise ModelError(
            f'"{path}" is a link to "{target}", outside of the model\'s folder. Copy the file into '
            "the folder, or pass the folder that holds it."
        )


def _entries(folder: Path) -> Iterator["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(_READ) or entry.name == "additional_chat_templates":
                    yield entry
    except OSError as error:
        raise ModelError(f'"{folder}" cannot be read: {error.strerror or error}.') from None


def _caches(folder: Path) -> list[Path]:
    """The Hub's cache, and the repository's own folder in it: its snapshots link to its blobs."""
    real = Path(os.path.realpath(folder))
    caches = [Path(os.path.realpath(_hub_cache()))]
    for parent in real.parents:
        if parent.name == "snapshots" and parent.parent.name.startswith("models--"):
            caches.append(parent.parent)
            break
    return caches


def _hub_cache() -> str:
    """The folder that huggingface_hub uses, without the time of its import."""
    if named := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return os.path.expanduser(named)
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or os.path.join(base, "huggingface")
    return os.path.expanduser(os.path.join(home, "hub"))
