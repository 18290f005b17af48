"""What MODEL on the command line means: a path first, a Hub name second, nothing for the demo.

    nothing                     the demo model that ships with the package
    a GGUF file                 itself; of a model in parts, any part stands for the whole
    a folder                    a checkout (config.json), a TensorRT-LLM engine (rank0.engine
                                beside it), or the one GGUF model in it
    org/repo[@revision][:WHAT]  downloaded from the Hub; see `hub.py`

What exists on disk wins over the Hub. What only looks like a path never asks the Hub.
"""

import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NoReturn

from msgspec import Struct

from dynemo.errors import ModelError
from dynemo.models.choose import ModelKind, gguf_models, part_names, part_of, stem
from dynemo.models.file_type import SNIFF_BYTES, FileType, advice_for, file_type_of
from dynemo.models.hub.download import download, parse_hub_name, say

_DEMO = Path(__file__).parent / "demo"
_ENGINE_FILE = "rank0.engine"
_FORMS = "a GGUF file, a folder with config.json, or a Hub name (org/repo)"


class Found(Struct, frozen=True):
    """A model on disk. Its files exist, and are of the kind that they claim; nothing else is sure.

    `path` is the GGUF's (first) file, or a folder. `name` is what to call the model by default.
    `engine` is a folder that TensorRT-LLM built.
    """

    kind: Literal["gguf", "checkout", "engine"]
    path: Path
    name: str


def demo_gguf() -> Path:
    """The demo model as one GGUF file, which an engine can open where it lies."""
    return next(iter(sorted(_DEMO.rglob("*.gguf"))), _DEMO / "demo.gguf")


def demo_checkout() -> Path:
    """The demo model as a checkout: the folder that holds its `config.json`."""
    return next(iter(sorted(_DEMO.rglob("config.json"))), _DEMO / "config.json").parent


def find_model(
    argument: str | None,
    *,
    needs: ModelKind | None = None,
    engine: str = "the engine",
    takes_engines: bool = False,
    tell: Callable[[str], None] = say,
) -> Found:
    """What `argument` means; downloads a Hub name, which blocks (call it on the main thread).

    `needs` is the one kind that `engine` can take, where it can take only one; `takes_engines` says
    that it also takes a folder that TensorRT-LLM built. `tell` gets a line when a choice was made
    that nobody asked for. Raises `ModelError` with a sentence for the user.
    """
    if argument is None or (argument == "demo" and not _exists(Path(argument))):
        if needs == "checkout":
            return Found("checkout", demo_checkout(), "demo")
        return Found("gguf", demo_gguf(), "demo")
    if not argument.strip():
        raise ModelError(f"the model's name is empty: give {_FORMS}")
    path = Path(argument).expanduser()
    if _exists(path):
        found = _local(path, argument)
        if found.kind == "engine" and takes_engines:
            return found
        return _fitting(found, argument, needs, engine)
    name = None if _is_like_path(argument) else parse_hub_name(argument)
    if name is None:
        _missing(path, argument)
    got = download(name, needs=needs, tell=tell)
    return Found(got.kind, got.path, name.repo.split("/")[1])


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise ModelError(
            f"cannot look at {path} ({error.strerror}): check the path and its permissions"
        ) from None


def _is_like_path(argument: str) -> bool:
    if argument.startswith(("/", "./", "../", "~")) or argument in (".", ".."):
        return True
    if not argument.lower().endswith(".gguf") or ":" in argument:
        return False
    # `models/x.gguf` could be a repository of that name, but not beside a folder `models`.
    return argument.count("/") != 1 or Path(argument).parent.is_dir()


def _missing(path: Path, argument: str) -> NoReturn:
    if "://" in argument:
        raise ModelError(f"{argument} is an address: give {_FORMS}")
    try:
        names = sorted(os.listdir(path.parent))
    except OSError:
        names = []
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.7)
    if close:
        near = f"{argument.removesuffix('/')[: -len(path.name)]}{close[0]}"
        raise ModelError(f"no such file or folder: {argument}; did you mean {near}?")
    raise ModelError(f"no such file or folder: {argument}; give {_FORMS}")


def _local(path: Path, argument: str) -> Found:
    try:
        if path.is_dir():
            return _folder(path, argument)
        if path.is_file():
            return _file(path, argument)
    except OSError as error:
        raise ModelError(
            f"cannot read {argument} ({error.strerror}): check its permissions"
        ) from None
    raise ModelError(f"{argument} is neither a file nor a folder: give {_FORMS}")


def _file(path: Path, argument: str) -> Found:
    with path.open("rb") as file:
        kind = file_type_of(file.read(SNIFF_BYTES))
    if kind is not FileType.GGUF:
        advice = advice_for(kind)
        if (path.parent / "config.json").is_file() and kind in (
            FileType.SAFETENSORS,
            FileType.JSON,
        ):
            advice = f"give its folder, {path.absolute().parent}"
        elif path.suffix == ".py":
            advice = f"an engine of your own is out={argument}"
        raise ModelError(f"{argument} is {kind}, and not a GGUF file: {advice}")
    return _gguf(path)


def _gguf(path: Path) -> Found:
    names = part_names(path.name)
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        part = part_of(path.name)
        count = part[1] if part else 1
        raise ModelError(
            f"{path.parent / missing[0]} is missing, one of {count} parts of this model: "
            "put all parts into one folder"
        )
    return Found("gguf", path.parent / names[0], stem(path.name))


def _folder(path: Path, argument: str) -> Found:
    files = [entry.name for entry in path.iterdir() if entry.is_file()]
    name = path.resolve().name or "model"
    models = gguf_models(files)
    has_config = "config.json" in files
    if has_config and _ENGINE_FILE in files:
        return Found("engine", path, name)
    # A folder of GGUF files from the Hub often has the config.json of the original.
    has_weights = any(file.endswith((".safetensors", ".bin")) for file in files)
    if has_config and (has_weights or not models):
        return Found("checkout", path, name)
    if len(models) == 1:
        (names,) = models.values()
        present = next(part for part in names if part in files)
        return _file(path / present, str(Path(argument) / present))
    if models:
        listed = ", ".join(str(Path(argument) / first) for first in models)
        raise ModelError(f"{argument} holds {len(models)} GGUF models: give one of {listed}")
    if not any(path.iterdir()):
        raise ModelError(f"{argument} is an empty folder: give {_FORMS}")
    raise ModelError(
        f"{argument} is a folder without config.json and without a GGUF: give {_FORMS}"
    )


def _fitting(found: Found, argument: str, needs: ModelKind | None, engine: str) -> Found:
    if needs == "checkout" and found.kind == "gguf":
        raise ModelError(
            f"{argument} is a GGUF file and {engine} needs a checkout: "
            "give a folder with config.json and safetensors, or another engine"
        )
    if needs == "gguf" and found.kind == "checkout":
        raise ModelError(
            f"{argument} is a checkout and {engine} needs a GGUF file: give one, or another engine"
        )
    if needs is not None and found.kind == "engine":
        needed = "GGUF file" if needs == "gguf" else needs
        raise ModelError(
            f"{argument} is a TensorRT-LLM engine and {engine} needs a {needed}: "
            "give one, or out=trtllm"
        )
    return found
