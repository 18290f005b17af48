"""Finds the model that MODEL on the command line names.

    nothing                     the demo model of the package
    a GGUF file                 this file; any part of a split model stands for the whole
    a folder                    a checkout (config.json), a TensorRT-LLM engine (rank0.engine
                                beside it), or the only GGUF model in it
    org/repo[@revision][:WHAT]  downloaded from the Hub; see `hub/download.py`

An existing path takes precedence over the Hub. A name that looks like a path never asks the Hub.
"""

import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NoReturn

from msgspec import Struct

from dynemo.errors import ModelError
from dynemo.models.choose import ModelFormat, gguf_models, part_names, part_of, stem
from dynemo.models.file_type import SNIFF_BYTES, FileType, advice_for, file_type_of
from dynemo.models.files import check_link
from dynemo.models.hub.download import download, parse_hub_name, print_line

_DEMO = Path(__file__).parent / "demo"
_ENGINE_FILE = "rank0.engine"
_FORMS = "a GGUF file, a folder with config.json, or a Hub name (org/repo)"


class Found(Struct, frozen=True):
    """A model on disk. Its files exist and have the stated format; nothing else was checked.

    `path` is the (first) GGUF file, or a folder. `name` is the model's default name. The format
    `engine` is a folder that TensorRT-LLM built.
    """

    format: Literal["gguf", "checkout", "engine"]
    path: Path
    name: str


def demo_gguf() -> Path:
    """Returns the demo model's GGUF file, which an engine can open in place."""
    return next(iter(sorted(_DEMO.rglob("*.gguf"))), _DEMO / "demo.gguf")


def demo_checkout() -> Path:
    """Returns the demo model's checkout: the folder that holds its `config.json`."""
    return next(iter(sorted(_DEMO.rglob("config.json"))), _DEMO / "config.json").parent


def find_model(
    argument: str | None,
    *,
    needs: ModelFormat | None = None,
    engine: str = "the engine",
    takes_engines: bool = False,
    notify: Callable[[str], None] = print_line,
) -> Found:
    """Returns the model that `argument` names. A Hub name is downloaded.

    The download blocks; call this function on the main thread. `needs` is the only format that
    `engine` can load, if there is only one. `takes_engines`: it also loads folders that
    TensorRT-LLM built. `notify` gets a line if a default was used. Raises ModelError.
    """
    if argument is None or (argument == "demo" and not _exists(Path(argument))):
        if needs == "checkout":
            return Found("checkout", demo_checkout(), "demo")
        return Found("gguf", demo_gguf(), "demo")
    if not argument.strip():
        raise ModelError(f"The model name is empty. Pass {_FORMS}.")
    path = Path(argument).expanduser()
    if _exists(path):
        found = _local(path, argument)
        if found.format == "engine" and takes_engines:
            return found
        return _fitting(found, argument, needs, engine)
    name = None if _is_like_path(argument) else parse_hub_name(argument)
    if name is None:
        _missing(path, argument)
    got = download(name, needs=needs, notify=notify)
    return Found(got.format, got.path, name.repo.split("/")[1])


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise ModelError(
            f'"{path}" cannot be accessed: {error.strerror}. Check the path and its permissions.'
        ) from None


def _is_like_path(argument: str) -> bool:
    if argument.startswith(("/", "./", "../", "~")) or argument in (".", ".."):
        return True
    if not argument.lower().endswith(".gguf") or ":" in argument:
        return False
    # `models/x.gguf` may be the name of a repository, but not if a folder `models` exists.
    return argument.count("/") != 1 or Path(argument).parent.is_dir()


def _missing(path: Path, argument: str) -> NoReturn:
    if "://" in argument:
        raise ModelError(f'"{argument}" is a URL. Pass {_FORMS}.')
    try:
        names = sorted(os.listdir(path.parent))
    except OSError:
        names = []
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.7)
    if close:
        near = f"{argument.removesuffix('/')[: -len(path.name)]}{close[0]}"
        raise ModelError(f'No file or folder "{argument}". Did you mean "{near}"?')
    raise ModelError(f'No file or folder "{argument}". Pass {_FORMS}.')


def _local(path: Path, argument: str) -> Found:
    try:
        if path.is_dir():
            return _folder(path, argument)
        if path.is_file():
            return _file(path, argument)
    except OSError as error:
        raise ModelError(
            f'"{argument}" cannot be read: {error.strerror}. Check its permissions.'
        ) from None
    raise ModelError(f'"{argument}" is neither a file nor a folder. Pass {_FORMS}.')


def _file(path: Path, argument: str) -> Found:
    with path.open("rb") as file:
        file_type = file_type_of(file.read(SNIFF_BYTES))
    if file_type is not FileType.GGUF:
        advice = advice_for(file_type)
        if (path.parent / "config.json").is_file() and file_type in (
            FileType.SAFETENSORS,
            FileType.JSON,
        ):
            advice = f"Pass its folder, {path.absolute().parent}."
        elif path.suffix == ".py":
            advice = f"To use it as an engine, pass out={argument}."
        raise ModelError(f'"{argument}" is {file_type}, not a GGUF file. {advice}')
    return _gguf(path)


def _gguf(path: Path) -> Found:
    names = part_names(path.name)
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        part = part_of(path.name)
        count = part[1] if part else 1
        raise ModelError(
            f'"{path.parent / missing[0]}" is missing, one of {count} parts of this model. Put '
            "all parts into one folder."
        )
    return Found("gguf", path.parent / names[0], stem(path.name))


def _folder(path: Path, argument: str) -> Found:
    files = [entry.name for entry in path.iterdir() if entry.is_file()]
    name = path.resolve().name or "model"
    models = gguf_models(files)
    has_config = "config.json" in files
    if has_config and _ENGINE_FILE in files:
        return Found("engine", path, name)
    # A folder of GGUF files from the Hub often has the config.json of the original model.
    has_weights = any(file.endswith((".safetensors", ".bin")) for file in files)
    if has_config and (has_weights or not models):
        return Found("checkout", path, name)
    if len(models) == 1:
        (names,) = models.values()
        present = next(part for part in names if part in files)
        check_link(path / present)
        return _file(path / present, str(Path(argument) / present))
    if models:
        listed = ", ".join(str(Path(argument) / first) for first in models)
        raise ModelError(f'"{argument}" holds {len(models)} GGUF models. Choose one of {listed}.')
    if not any(path.iterdir()):
        raise ModelError(f'"{argument}" is an empty folder. Pass {_FORMS}.')
    raise ModelError(
        f'"{argument}" is a folder without config.json and without a GGUF file. Pass {_FORMS}.'
    )


def _fitting(found: Found, argument: str, needs: ModelFormat | None, engine: str) -> Found:
    if needs == "checkout" and found.format == "gguf":
        raise ModelError(
            f'"{argument}" is a GGUF file, but {engine} needs a checkout. Pass a folder with '
            "config.json and safetensors, or choose another engine."
        )
    if needs == "gguf" and found.format == "checkout":
        raise ModelError(
            f'"{argument}" is a checkout, but {engine} needs a GGUF file. Pass a GGUF file, or '
            "choose another engine."
        )
    if needs is not None and found.format == "engine":
        needed = "GGUF file" if needs == "gguf" else needs
        raise ModelError(
            f'"{argument}" is a TensorRT-LLM engine, but {engine} needs a {needed}. Pass one, or '
            "choose out=trtllm."
        )
    return found
