"""Prepares a model for mistral.rs: its files in a readable form, and the user's options.

mistral.rs gets a private copy of a checkout. The copy consists of links, except for two files:
- `tokenizer.json` without its post-processor, which would add a BOS to prompts without one;
  our rendered prompt is already complete;
- `config.json` with `rope_theta` in the position that mistral.rs reads.
"""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec import DecodeError, Raw, json

from dynemo.engines.mistralrs.tokenizer import tokenizer_json
from dynemo.engines.options import check_values, read_options, unknown_argument
from dynemo.errors import ModelError, UsageError
from dynemo.foreign import decode_json
from dynemo.messages.spec import EngineSpec

#: The arguments of `Runner`, and of its model, that the user may set.
_RUNNER = (
    "max_seqs", "no_kv_cache", "prefix_cache_n", "mtp_model", "mtp_n_predict", "num_device_layers",
    "in_situ_quant", "memory_goal", "pa_blk_size", "no_paged_attn", "paged_attn", "seed",
)  # fmt: skip
_WHICH = (
    "topology", "dtype", "organization", "write_uqff", "imatrix", "calibration_file",
    "matformer_config_path", "matformer_slice_name",
)  # fmt: skip
_PLAIN = ("arch", "from_uqff")
#: The values of these arguments are attributes of classes in the wheel.
_ENUMS = {"dtype": "ModelDType", "arch": "Architecture", "organization": "IsqOrganization"}
#: The types of the other arguments, if they have a single type.
_VALUE_TYPES: dict[str, type] = {
    **dict.fromkeys(("max_seqs", "prefix_cache_n", "mtp_n_predict", "pa_blk_size", "seed"), int),
    **dict.fromkeys(("no_kv_cache", "no_paged_attn", "paged_attn"), bool),
    **{name: str for name in ("mtp_model", *_WHICH) if name not in _ENUMS},
}


_PROMPT = "{{ messages[0]['content'] }}"
_PART = re.compile(r"-\d{5}-of-(\d{5})\.gguf$")
_MOST_SEQUENCES = 32  # the wheel's own default, as is the next one
_MOST_KEPT = 16
_CONTEXT = 8192
#: The share of free memory for the caches of all running sequences. The prefix cache gets the same.
_KV_SHARE = 0.25
#: Below this size in bytes one thread is faster than two, which would wait for each other.
_SMALL = 32 * 1024 * 1024


def is_gguf(spec: EngineSpec) -> bool:
    return os.path.isfile(spec.model)


def environment(spec: EngineSpec) -> dict[str, str]:
    """Returns the variables to set before the library is loaded, unless the user has set them."""
    variables = {
        # The threads synchronize after every operation. Spinning there takes cores from other
        # processes: on two busy cores, 100 M parameters gave a quarter of the tokens per second.
        "CANDLE_BARRIER_POOL_SPIN_LIMIT": "0",
        "HF_HUB_OFFLINE": "1",  # the model is already on disk
        "NO_COLOR": "1",
        "RUST_LOG": ("warn", "info", "debug")[min(spec.verbosity, 2)],
    }
    if 0 < spec.model_bytes < _SMALL:
        variables |= {"CANDLE_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    return variables


def runner_arguments(spec: EngineSpec, device: str) -> dict[str, Any]:
    """Returns the arguments of `mistralrs.Runner`.

    Raises UsageError for an unknown option, and ModelError if a checkout cannot be read.
    """
    import mistralrs

    known = (*_RUNNER, *_WHICH, *(() if is_gguf(spec) else _PLAIN))
    given = _given(spec, known)
    which = {name: given.pop(name) for name in list(given) if name not in _RUNNER}
    for name in _ENUMS.keys() & which.keys():
        which[name] = _member(mistralrs, name, which[name])
    template = Path(spec.workdir) / "prompt.jinja"
    template.write_text(_PROMPT)
    try:
        model = _gguf(spec, which) if is_gguf(spec) else _plain(spec, which)
    except TypeError as error:
        raise UsageError(f"mistral.rs refuses its options: {error}.") from None
    slots = default_slots(spec, device)
    kept = min(_MOST_KEPT, affordable(spec, free_memory()))  # sequences in its prefix cache
    kept = kept if device == "cpu" else _MOST_KEPT
    # Its prefix cache has no salt.
    ours = {"max_seqs": slots, "prefix_cache_n": 0 if spec.has_keys else kept}
    return {**ours, **given, "which": model, "jinja_explicit": str(template)}


def default_slots(spec: EngineSpec, device: str) -> int:
    """Returns how many sequences may run at the same time.

    It is one for a GGUF on the CPU, where several prompts in one batch fail with "input tensor is
    not contiguous". The row of the last position is cut out of the batch and multiplied without a
    copy. https://github.com/EricLBuehler/mistral.rs/issues/1882 is the same error on
    Metal.
    """
    if device != "cpu":
        return spec.slots or _MOST_SEQUENCES
    if is_gguf(spec):
        return 1
    return spec.slots or min(_MOST_SEQUENCES, affordable(spec, free_memory()))


def affordable(spec: EngineSpec, free: int) -> int:
    """Returns how many sequences fit into a share of the free memory, at least one.

    The cache grows with its content, so a sequence counts with a usual length, not with the maximum
    of the model.
    """
    tokens = min(spec.context_length or spec.model_context or _CONTEXT, _CONTEXT)
    bytes_each = tokens * spec.kv_bytes_per_token
    if not free or not bytes_each:
        return _MOST_SEQUENCES
    return max(1, int(free * _KV_SHARE) // bytes_each)


def free_memory() -> int:
    """Returns the available memory in bytes, or 0 if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    available = (line.split() for line in lines if line.startswith("MemAvailable:"))
    return next((int(fields[1]) * 1024 for fields in available), 0)


def _given(spec: EngineSpec, known: tuple[str, ...]) -> dict[str, Any]:
    extra = {name.replace("-", "_"): value for name, value in spec.extra.items()}
    for name in extra:
        if name not in known:
            raise unknown_argument("mistralrs", name, known)
    given = {**extra, **read_options("mistralrs", spec.options, known)}
    if "in_situ_quant" in given:
        given["in_situ_quant"] = str(given["in_situ_quant"])  # 4 and Q4K are both names
    if isinstance(given.get("num_device_layers"), str):
        given["num_device_layers"] = given["num_device_layers"].split(",")
    check_values("mistralrs", given, _VALUE_TYPES)
    slots = given.get("max_seqs", 1)
    if slots is None or slots < 1:
        raise UsageError(
            f"The mistralrs option max_seqs takes a whole number of at least 1, not {slots}."
        )
    return given


def _member(module: Any, name: str, value: Any) -> Any:
    names = [each for each in dir(getattr(module, _ENUMS[name])) if not each.startswith("_")]
    for each in names:
        if each.lower() == str(value).lower():
            return getattr(getattr(module, _ENUMS[name]), each)
    raise UsageError(
        f"The mistralrs option --{name} does not take {value!r}. It takes {', '.join(names)}."
    )


def _gguf(spec: EngineSpec, which: dict[str, Any]) -> Any:
    import mistralrs

    folder, file = os.path.split(os.path.abspath(spec.model))  # an empty folder name means the Hub
    files: str | list[str] = file
    if part := _PART.search(file):
        stem, count = file[: part.start()], part[1]
        files = [f"{stem}-{n:05}-of-{count}.gguf" for n in range(1, int(count) + 1)]
    if spec.tokenizer_source:
        which["tokenizer_json"] = str(_tokenizer(Path(spec.tokenizer_source), Path(spec.workdir)))
    elif (converted := tokenizer_json(Path(spec.model))) is not None:
        path = Path(spec.workdir) / "tokenizer.json"
        path.write_bytes(converted)
        which["tokenizer_json"] = str(path)
    return mistralrs.Which.GGUF(quantized_model_id=folder, quantized_filename=files, **which)


def _plain(spec: EngineSpec, which: dict[str, Any]) -> Any:
    import mistralrs

    return mistralrs.Which.Plain(model_id=str(_private_copy(spec)), **which)


def _private_copy(spec: EngineSpec) -> Path:
    copy = Path(spec.workdir) / "model"
    copy.mkdir()
    model = Path(spec.model).absolute()
    try:
        for entry in model.iterdir():
            if entry.name not in ("config.json", "tokenizer.json"):
                (copy / entry.name).symlink_to(entry)
        _config(model, copy)
    except OSError as error:
        raise ModelError(f'"{error.filename}" cannot be read: {error.strerror}.') from error
    _tokenizer(Path(spec.tokenizer_source or model), copy)
    return copy


def _config(source: Path, target: Path) -> None:
    """Writes a changed `config.json`, or links the file if nothing changes.

    Some files hold an `Infinity`, which is not JSON, so they are linked.
    """
    file = source / "config.json"
    with suppress(DecodeError):
        config = decode_json(file.read_bytes(), dict[str, Any])
        if (changed := with_rope(config)) != config:
            (target / file.name).write_bytes(json.encode(changed))
            return
    (target / file.name).symlink_to(file)


def _tokenizer(source: Path, target: Path) -> Path:
    """Writes a folder's tokenizer into another folder, without its post-processor."""
    file = source / "tokenizer.json"
    try:
        parts = decode_json(file.read_bytes(), dict[str, Raw])
    except OSError as error:
        raise ModelError(f'"{file}" cannot be read: {error.strerror}.') from error
    except DecodeError as error:
        raise ModelError(f'"{file}" is not a JSON object: {error}.') from error
    parts["post_processor"] = Raw(b"null")
    path = target / file.name
    path.write_bytes(json.encode(parts))
    return path


def with_rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a `config.json` in the form of transformers 4.

    Version 5 puts all of RoPE into one entry.
    """
    rope = config.get("rope_parameters")
    if not isinstance(rope, Mapping) or "rope_theta" not in rope or "rope_theta" in config:
        return dict(config)
    changed = {**config, "rope_theta": rope["rope_theta"]}
    if rope.get("rope_type", "default") != "default" and config.get("rope_scaling") is None:
        changed["rope_scaling"] = {name: rope[name] for name in rope if name != "rope_theta"}
    return changed
