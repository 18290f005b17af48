"""Which of the files in a folder or a repository make up a model. Names only: nothing is read.

A model in GGUF may lie in several parts (`NAME-00001-of-00003.gguf`), of which an engine opens the
first; the rest must lie beside it. A repository often has many quantizations of one model, a
`mmproj` file (a vision part, no model by itself), and the same weights in several formats.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from msgspec import Struct

from dynemo.errors import ModelError

ModelKind = Literal["gguf", "checkout"]

#: What a repository of GGUF files alone gives when nobody says which: small, and nearly as good.
DEFAULT_QUANT = "Q4_K_M"

MAX_PARTS = 1000

_PART = re.compile(r"-(\d{5})-of-(\d{5})(?=(?:\.gguf)?$)", re.IGNORECASE)
_QUANT = re.compile(
    r"(?:^|[-._ ])((?:UD-)?(?:I?Q\d+\w*|BF16|F16|F32|FP16|FP32|TQ\d_\d|MXFP4\w*))$", re.IGNORECASE
)
_QUANT_START = re.compile(r"(?:UD-)?(?:I?Q\d|B?F\d|FP\d|TQ\d|MXFP)", re.IGNORECASE)
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors$")
# Small files that say what the weights and the text mean. No code and no pickles: neither is run.
_CHECKOUT_FILE = re.compile(
    r"(?:config|generation_config|special_tokens_map|added_tokens|vocab|preprocessor_config"
    r"|processor_config|model\.safetensors\.index|tekken)\.json"
    r"|tokenizer[\w.-]*\.(?:json|model)|merges\.txt|vocab\.txt"
    r"|chat_template[\w.-]*|additional_chat_templates/[^/]+"
)


class ModelChoice(Struct, frozen=True):
    """The files to have, in the order to fetch them, and the one that an engine opens."""

    kind: ModelKind
    files: tuple[str, ...]
    #: The GGUF's (first) file; for a checkout its `config.json`.
    main: str
    #: What to tell the user, when a choice was made that nobody asked for.
    note: str | None = None


def stem(path: str) -> str:
    """A GGUF's name without folder, `.gguf` and the suffix of a part."""
    name = path.rsplit("/", 1)[-1]
    if name.lower().endswith(".gguf"):
        name = name[: -len(".gguf")]
    return _PART.sub("", name)


def part_of(path: str) -> tuple[int, int] | None:
    """(number, count) of a part, from its name; None for a file that is whole."""
    match = _PART.search(path)
    return (int(match[1]), int(match[2])) if match else None


def part_names(path: str) -> tuple[str, ...]:
    """The names of all parts of the set that `path` belongs to, in order; itself if it is whole."""
    part = part_of(path)
    # A count that no model has is a name that only looks like a part.
    if part is None or not 1 <= part[0] <= part[1] <= MAX_PARTS:
        return (path,)
    return tuple(_PART.sub(f"-{n:05}-of-{part[1]:05}", path) for n in range(1, part[1] + 1))


def gguf_models(files: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """First file -> all files of each model in GGUF, sorted by name.

    Left out: `mmproj` and importance-matrix files, which are no models. A set that lacks a part is
    listed all the same, with all the names that it should have.
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
    """The quantization that a GGUF's name ends with, as written there, like `Q4_K_M`."""
    match = _QUANT.search(stem(path))
    return match[1] if match else None


def has_label(path: str, label: str) -> bool:
    """Whether a GGUF's name ends with `label`, whole and in any case (`Q4_K` is not `Q4_K_M`)."""
    name, wanted = stem(path).lower(), label.lower()
    if not wanted or not name.endswith(wanted):
        return False
    before = name[: -len(wanted)][-1:]
    # `model_q8_0` is a Q8_0, but `iq4_k_m` is no `K_M`.
    return before in ("", "-", ".", " ") or (
        before == "_" and _QUANT_START.match(label) is not None
    )


def choose(
    files: Sequence[str], *, of: str, pick: str | None = None, needs: ModelKind | None = None
) -> ModelChoice:
    """The model in `files`, which are relative paths with `/`; `of` names the place in sentences.

    `pick` is a GGUF's file name or the label of a quantization. `needs` is the one kind that the
    engine can take. Raises `ModelError` when there is none, or several and no way to choose.
    """
    models = gguf_models(files)
    if pick is not None:
        if needs == "checkout":
            raise ModelError(
                f"{of}:{pick} is a GGUF file and the engine needs a checkout: leave out :{pick}"
            )
        return _picked(files, models, of, pick)
    checkout = checkout_files(files)
    if checkout and needs != "gguf":
        return ModelChoice("checkout", checkout, "config.json")
    if models and needs != "checkout":
        return _default_gguf(files, models, of)
    raise ModelError(_why_none(files, of, checkout, models))


def checkout_files(files: Sequence[str]) -> tuple[str, ...]:
    """The files of a checkout that an engine needs, weights last; empty if there is no checkout.

    Only what lies at the top, and each weight once: not a second copy in another format
    (`*.bin`, `consolidated.safetensors`, `onnx/`, `original/`).
    """
    weights = _weights([file for file in files if file.endswith(".safetensors")])
    if "config.json" not in files or not weights:
        return ()
    # Weights last, so that whoever finds them in a cache finds the small files too.
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
    files: Sequence[str], models: dict[str, tuple[str, ...]], of: str, pick: str
) -> ModelChoice:
    if pick.lower().endswith(".gguf"):
        exact = [f for f in files if f == pick] or [f for f in files if f.endswith(f"/{pick}")]
        # A part stands for its set.
        found = {part_names(file)[0]: part_names(file) for file in exact}
    else:
        found = {first: names for first, names in models.items() if has_label(first, pick)}
    if len(found) > 1:
        raise ModelError(f"{of} has several files for {pick}: name one of {_list(found)}")
    if not found:
        if not models:
            raise ModelError(f"{of} has no GGUF file: leave out :{pick}")
        raise ModelError(f"{of} has no {pick}: it has {_list(_labels(models))}")
    return _gguf(files, found, of)


def _default_gguf(files: Sequence[str], models: dict[str, tuple[str, ...]], of: str) -> ModelChoice:
    usual = {first: names for first, names in models.items() if has_label(first, DEFAULT_QUANT)}
    found = usual if len(usual) == 1 else models
    if len(found) > 1:
        labels = _labels(models)
        raise ModelError(
            f"{of} has {len(models)} GGUF models and no one {DEFAULT_QUANT}: "
            f"say which, like {of}:{labels[0]}; it has {_list(labels)}"
        )
    (first,) = found
    return _gguf(files, found, of, f"using {first} of {of}" if len(models) > 1 else None)


def _gguf(
    files: Sequence[str], found: dict[str, tuple[str, ...]], of: str, note: str | None = None
) -> ModelChoice:
    (names,) = found.values()
    missing = [name for name in names if name not in files]
    if missing:
        raise ModelError(f"{of} lacks {_list(missing)}, a part of the model: get it from elsewhere")
    return ModelChoice("gguf", names, names[0], note)


def _labels(models: dict[str, tuple[str, ...]]) -> list[str]:
    """What to write after the colon for each model: its quantization, or else its file."""
    quants = [quant_of(first) for first in models]
    return [
        quant if quant and quants.count(quant) == 1 else first
        for first, quant in zip(models, quants, strict=True)
    ]


def _why_none(
    files: Sequence[str], of: str, checkout: tuple[str, ...], models: dict[str, tuple[str, ...]]
) -> str:
    if checkout:
        return f"{of} is a checkout and the engine needs a GGUF file: give one, or another engine"
    if models:
        return (
            f"{of} holds only GGUF files and the engine needs a checkout: "
            "give one with safetensors, or another engine"
        )
    if any(file.endswith((".bin", ".pth", ".pt")) for file in files):
        return f"{of} has its weights only as PyTorch pickles: choose one with safetensors or GGUF"
    if "adapter_config.json" in files:
        return f"{of} is an adapter and no whole model: merge it into its base model first"
    if any(file.endswith(".safetensors") for file in files):
        return f"{of} has safetensors but no config.json: it is no model for text"
    return f"{of} has neither safetensors nor GGUF files: it is no model that can be run"


def _list(names: Iterable[str], limit: int = 16) -> str:
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
