"""Selects the files of a model in a folder or a repository, by their names alone.

A GGUF model may be split into parts (`NAME-00001-of-00003.gguf`). An engine opens the first part
and finds the others beside it. A repository often holds many quantizations of one model, and the
same weights in several formats. A `mmproj` file is a vision part, which cannot run alone.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from msgspec import Struct

from dynemo.errors import ModelError

ModelFormat = Literal["gguf", "checkout"]

#: The default among several GGUF files: small, and nearly as good as the original.
DEFAULT_QUANT = "Q4_K_M"

MAX_PARTS = 1000

_PART = re.compile(r"-(\d{5})-of-(\d{5})(?=(?:\.gguf)?$)", re.IGNORECASE)
_QUANT = re.compile(
    r"(?:^|[-._ ])((?:UD-)?(?:I?Q\d+\w*|BF16|F16|F32|FP16|FP32|TQ\d_\d|MXFP4\w*))$", re.IGNORECASE
)
_QUANT_START = re.compile(r"(?:UD-)?(?:I?Q\d|B?F\d|FP\d|TQ\d|MXFP)", re.IGNORECASE)
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors$")
# Small files that describe weights and text. Code and pickles are left out: neither is ever run.
_CHECKOUT_FILE = re.compile(
    r"(?:config|generation_config|special_tokens_map|added_tokens|vocab|preprocessor_config"
    r"|processor_config|model\.safetensors\.index|tekken)\.json"
    r"|tokenizer[\w.-]*\.(?:json|model)|merges\.txt|vocab\.txt"
    r"|chat_template[\w.-]*|additional_chat_templates/[^/]+"
)


class ModelChoice(Struct, frozen=True):
    """The files of a model in download order, and the one that an engine opens."""

    format: ModelFormat
    files: tuple[str, ...]
    #: The first GGUF file, or a checkout's `config.json`.
    main: str
    #: A note for the user if a default was used.
    note: str | None = None


def stem(path: str) -> str:
    """Returns a GGUF's name without folder, `.gguf` and part suffix."""
    name = path.rsplit("/", 1)[-1]
    if name.lower().endswith(".gguf"):
        name = name[: -len(".gguf")]
    return _PART.sub("", name)


def part_of(path: str) -> tuple[int, int] | None:
    """Returns (number, count) from a part's name, or None for a file that is not split."""
    match = _PART.search(path)
    return (int(match[1]), int(match[2])) if match else None


def part_names(path: str) -> tuple[str, ...]:
    """Returns the names of all parts of the model that `path` belongs to, in order.

    A file that is not split is the only name.
    """
    part = part_of(path)
    # No model has so many parts: the name only looks like a part.
    if part is None or not 1 <= part[0] <= part[1] <= MAX_PARTS:
        return (path,)
    return tuple(_PART.sub(f"-{n:05}-of-{part[1]:05}", path) for n in range(1, part[1] + 1))


def gguf_models(files: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Returns all GGUF models as first file -> all files, sorted by name.

    `mmproj` and importance-matrix files are skipped, because they are not models. A model that
    lacks a part is included, with the names of all its parts.
    """
    models = {}
    for file in sorted(files):
        name = file.rsplit("/", 1)[-1].lower()
        if not name.endswith(".gguf") or "mmproj" in name or "imatrix" in name:
            continue
        names = part_names(file)
        models[names[0]] = names
    return models


def quant_of(path: str) -> str | None:
    """Returns the quantization at the end of a GGUF's name, as spelled there, or None."""
    match = _QUANT.search(stem(path))
    return match[1] if match else None


def has_label(path: str, label: str) -> bool:
    """Whether a GGUF's name ends with the whole `label`, in any case (`Q4_K` is not `Q4_K_M`)."""
    name, wanted = stem(path).lower(), label.lower()
    if not wanted or not name.endswith(wanted):
        return False
    before = name[: -len(wanted)][-1:]
    # `model_q8_0` ends with Q8_0, but `iq4_k_m` does not end with K_M.
    return before in ("", "-", ".", " ") or (
        before == "_" and _QUANT_START.match(label) is not None
    )


def choose(
    files: Sequence[str], *, place: str, pick: str | None = None, needs: ModelFormat | None = None
) -> ModelChoice:
    """Selects the model in `files`, which are relative paths with `/`.

    `place` names their folder or repository in messages. `pick` is a GGUF's file name or the label
    of a quantization. `needs` is the format that the engine requires, if it requires one. Raises
    ModelError if `files` hold no model, or several of which none is the default.
    """
    models = gguf_models(files)
    if pick is not None:
        if needs == "checkout":
            raise ModelError(
                f'"{place}:{pick}" is a GGUF file, but the engine needs a checkout. Remove '
                f'":{pick}".'
            )
        return _picked(files, models, place, pick)
    checkout = checkout_files(files)
    if checkout and needs != "gguf":
        return ModelChoice("checkout", checkout, "config.json")
    if models and needs != "checkout":
        return _default_gguf(files, models, place)
    raise ModelError(_why_none(files, place, checkout, models))


def checkout_files(files: Sequence[str]) -> tuple[str, ...]:
    """Returns the files of a checkout that an engine needs, weights last, or () if there is none.

    It takes only files at the top level, and each weight once: it skips copies in other formats
    (`*.bin`, `consolidated.safetensors`, `onnx/`, `original/`).
    """
    weights = _weights([file for file in files if file.endswith(".safetensors")])
    if "config.json" not in files or not weights:
        return ()
    # Weights come last: if a cache has the weights, it has the small files, too.
    small = sorted(file for file in files if _CHECKOUT_FILE.fullmatch(file))
    return (*small, *weights)


def _weights(tensors: list[str]) -> list[str]:
    top = sorted(file for file in tensors if "/" not in file)
    shards = [file for file in top if _SHARD.fullmatch(file)]
    if shards:
        return shards
    if "model.safetensors" in top:
        return ["model.safetensors"]
    others = [f for f in top if not f.startswith(("consolidated", "adapter"))]
    return others or [f for f in top if f.startswith("consolidated")]


def _picked(
    files: Sequence[str], models: dict[str, tuple[str, ...]], place: str, pick: str
) -> ModelChoice:
    if pick.lower().endswith(".gguf"):
        exact = [f for f in files if f == pick] or [f for f in files if f.endswith(f"/{pick}")]
        # A part stands for its whole model.
        found = {part_names(file)[0]: part_names(file) for file in exact}
    else:
        found = {first: names for first, names in models.items() if has_label(first, pick)}
    if len(found) > 1:
        raise ModelError(f'"{place}" has several files for "{pick}". Choose one of {_list(found)}.')
    if not found:
        if not models:
            raise ModelError(f'"{place}" has no GGUF file. Remove ":{pick}".')
        raise ModelError(f'"{place}" has no "{pick}". Choose one of {_list(_labels(models))}.')
    return _gguf(files, found, place)


def _default_gguf(
    files: Sequence[str], models: dict[str, tuple[str, ...]], place: str
) -> ModelChoice:
    usual = {first: names for first, names in models.items() if has_label(first, DEFAULT_QUANT)}
    found = usual if len(usual) == 1 else models
    if len(found) > 1:
        labels = _labels(models)
        raise ModelError(
            f'"{place}" has {len(models)} GGUF models, but not exactly one {DEFAULT_QUANT}. '
            f"Choose one, for example {place}:{labels[0]}. It has {_list(labels)}."
        )
    (first,) = found
    return _gguf(files, found, place, f"Using {first} of {place}." if len(models) > 1 else None)


def _gguf(
    files: Sequence[str], found: dict[str, tuple[str, ...]], place: str, note: str | None = None
) -> ModelChoice:
    (names,) = found.values()
    missing = [name for name in names if name not in files]
    if missing:
        raise ModelError(
            f'"{place}" lacks {_list(missing)}, which belongs to the model. Choose another source.'
        )
    return ModelChoice("gguf", names, names[0], note)


def _labels(models: dict[str, tuple[str, ...]]) -> list[str]:
    """Returns what to write after the colon for each model: its quantization, or else its file."""
    quants = [quant_of(first) for first in models]
    return [
        quant if quant and quants.count(quant) == 1 else first
        for first, quant in zip(models, quants, strict=True)
    ]


def _why_none(
    files: Sequence[str], place: str, checkout: tuple[str, ...], models: dict[str, tuple[str, ...]]
) -> str:
    if checkout:
        return (
            f'"{place}" is a checkout, but the engine needs a GGUF file. Pass a GGUF file, or '
            "choose another engine."
        )
    if models:
        return (
            f'"{place}" holds only GGUF files, but the engine needs a checkout. Pass one with '
            "safetensors, or choose another engine."
        )
    if any(file.endswith((".bin", ".pth", ".pt")) for file in files):
        return (
            f'"{place}" has its weights only as PyTorch pickles. Choose a model with safetensors '
            "or GGUF."
        )
    if "adapter_config.json" in files:
        return f'"{place}" is an adapter, not a whole model. Merge it into its base model first.'
    if any(file.endswith(".safetensors") for file in files):
        return (
            f'"{place}" has safetensors but no config.json, so it is not a text model. Choose '
            "another model."
        )
    return f'"{place}" has neither safetensors nor GGUF files. Choose another model.'


def _list(names: Iterable[str], limit: int = 16) -> str:
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
