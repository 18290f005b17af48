"""llama.cpp's parameters for one host: defaults from the model, and the user's own options."""

from collections.abc import Iterator, Mapping
from typing import Any

from dynemo.engines.options import in_json, unknown_argument, unknown_option
from dynemo.errors import UsageError
from dynemo.messages.spec import EngineSpec
from dynemo.spelling import quoted

#: The default context in tokens, unless the user or the model asks for less: it determines the size
#: of the KV cache.
_CONTEXT = 8192
_MOST_SLOTS = 8
#: Below this size in bytes one thread is faster than two, which would wait for each other.
_SMALL = 32 * 1024 * 1024
#: The share of free memory that the KV cache of all slots may use.
_KV_SHARE = 0.25

#: The options of llama-server that may follow `--`, with the parameter and the type of the value.
_OPTIONS: dict[str, tuple[str, str]] = {
    "--parallel": ("n_parallel", "count"),
    "--batch-size": ("n_batch", "tokens"),
    "--ubatch-size": ("n_ubatch", "tokens"),
    "--threads": ("cpuparams.n_threads", "count"),
    "--threads-batch": ("cpuparams_batch.n_threads", "count"),
    "--gpu-layers": ("n_gpu_layers", "int"),
    "--main-gpu": ("main_gpu", "int"),
    "--cache-ram": ("cache_ram_mib", "int"),
    "--flash-attn": ("flash_attn_type", "flash"),
    "--cache-type-k": ("cache_type_k", "cache"),
    "--cache-type-v": ("cache_type_v", "cache"),
    "--kv-unified": ("kv_unified", "flag"),
    "--swa-full": ("swa_full", "flag"),
    "--no-warmup": ("warmup", "unset"),
    "--no-kv-offload": ("no_kv_offload", "flag"),
    "--rope-freq-base": ("rope_freq_base", "float"),
    "--rope-freq-scale": ("rope_freq_scale", "float"),
    "--embeddings": ("embedding", "flag"),
    "--pooling": ("pooling_type", "pooling"),
}
#: The ggml types that llama.cpp supports for a cache.
_CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
#: How messages describe each type.
_VALUE_TYPES = {
    "int": "a whole number",
    "count": "a whole number from 1 to 256",
    "tokens": "a whole number from 2 up",
    "float": "a number from 0 up",
    "flash": "on, off or auto",
    "pooling": "mean, cls or last",
    "cache": f"one of {', '.join(_CACHE_TYPES)}",
    "flag": "true, or is left out",
    "unset": "true, or is left out",
}
_INT32 = 2**31 - 1
#: LLAMA_MAX_SEQ limits the slots. More threads than that make no sense, either.
_RANGES = {"int": (-_INT32, _INT32), "count": (1, 256), "tokens": (2, _INT32), "float": (0, 1e30)}
_FLAGS = ("flag", "unset")
_SHORT = {
    "-np": "--parallel",
    "-b": "--batch-size",
    "-ub": "--ubatch-size",
    "-t": "--threads",
    "-tb": "--threads-batch",
    "-ngl": "--gpu-layers",
    "-mg": "--main-gpu",
    "-fa": "--flash-attn",
    "-ctk": "--cache-type-k",
    "-ctv": "--cache-type-v",
}


def common_params(spec: EngineSpec, socket_path: str) -> Any:
    """Returns the `xllamacpp.CommonParams` of this host.

    Raises UsageError for an unknown option.
    """
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = spec.model
    params.hostnames = [socket_path]
    context = spec.context_length or min(_CONTEXT, spec.model_context or _CONTEXT)
    params.n_parallel = spec.slots or _slots(context, spec.kv_bytes_per_token)
    params.ui = False
    params.warmup = False
    params.verbosity = (1, 3, 4)[min(spec.verbosity, 2)]
    if 0 < spec.model_bytes < _SMALL:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.embedding = spec.embeds
    if spec.has_keys:
        params.cache_ram_mib = 0  # see `slots.py`
    apply_options(params, [*_as_options(spec.extra), *spec.options])
    params.n_ctx = context * params.n_parallel
    if params.embedding:
        _prepare_embedding(params, context, spec)
    params.n_threads_http = params.n_parallel + 6  # each open answer holds one of its threads
    return params


def _prepare_embedding(params: Any, context: int, spec: EngineSpec) -> None:
    """Configures embeddings: a text is embedded in one batch, and pooling defaults to the mean.

    With one cache per sequence, llama.cpp computes the mean and the first state of a batch wrongly:
    the result for a text depends on the other texts in the batch. With a unified cache it is right.
    """
    import xllamacpp

    params.n_batch = params.n_ubatch = context
    params.kv_unified = True
    pooling = xllamacpp.llama_pooling_type
    if not spec.embeds and params.pooling_type == pooling.LLAMA_POOLING_TYPE_UNSPECIFIED:
        params.pooling_type = pooling.LLAMA_POOLING_TYPE_MEAN


def _slots(context: int, kv_bytes_per_token: int) -> int:
    import xllamacpp

    free = max((device["memory_free"] for device in xllamacpp.get_device_info()), default=0)
    affordable = int(free * _KV_SHARE) // max(context * kv_bytes_per_token, 1)
    return max(1, min(_MOST_SLOTS, affordable))


def device_name(params: Any) -> str:
    """Returns where the layers are: `cpu`, or the first accelerator of this build (`metal`)."""
    import xllamacpp

    cpu = xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU
    others = [d["name"].lower() for d in xllamacpp.get_device_info() if d["type"] != cpu]
    return others[0] if others and params.n_gpu_layers != 0 else "cpu"


def _as_options(extra: Mapping[str, Any]) -> Iterator[str]:
    """Yields the content of --extra-engine-args as options after `--`."""
    for name, value in extra.items():
        flag = "--" + name.replace("_", "-")
        if flag not in _OPTIONS:
            raise unknown_argument("llama_cpp", name, [each[2:] for each in _OPTIONS])
        _, value_type = _OPTIONS[flag]
        if not (value is True if value_type in _FLAGS else type(value) in (str, int, float)):
            raise UsageError(_refused(flag, value_type, in_json(value)))
        yield flag if value_type in _FLAGS else f"{flag}={value}"


def apply_options(params: Any, options: list[str]) -> None:
    """Applies the user's options after `--`: `--name value` or `--name=value`."""
    rest = list(options)
    while rest:
        word = rest.pop(0)
        name, equals, text = word.partition("=") if word.startswith("--") else (word, "", "")
        if _SHORT.get(name, name) not in _OPTIONS:
            raise unknown_option("llama_cpp", name, _OPTIONS)
        field, value_type = _OPTIONS[_SHORT.get(name, name)]
        if value_type in _FLAGS and equals:
            raise UsageError(f"The llama_cpp option {name} takes no value, but got {quoted(text)}.")
        if value_type in _FLAGS:
            value: Any = value_type == "flag"
        elif not equals and not rest:
            raise UsageError(f"The llama_cpp option {name} needs a value after it.")
        else:
            value = _value(name, value_type, text if equals else rest.pop(0))
        target = params
        *path, last = field.split(".")
        for part in path:
            target = getattr(target, part)
        setattr(target, last, value)


def _number(value_type: str, text: str) -> float:
    """Parses a number. Raises ValueError if llama.cpp would exit or compute nonsense with it."""
    number = float(text) if value_type == "float" else int(text)
    least, most = _RANGES[value_type]
    if not least <= number <= most:  # also refuses NaN
        raise ValueError
    return number


def _value(name: str, value_type: str, text: str) -> Any:
    import xllamacpp

    try:
        if value_type in _RANGES:
            return _number(value_type, text)
        if value_type == "flash":
            word = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}[text]
            return getattr(xllamacpp.llama_flash_attn_type, f"LLAMA_FLASH_ATTN_TYPE_{word}")
        if value_type == "pooling":
            word = {"mean": "MEAN", "cls": "CLS", "last": "LAST"}[text]
            return getattr(xllamacpp.llama_pooling_type, f"LLAMA_POOLING_TYPE_{word}")
        at = _CACHE_TYPES.index(text.lower())
        return getattr(xllamacpp.ggml_type, f"GGML_TYPE_{_CACHE_TYPES[at].upper()}")
    except (ValueError, KeyError):
        raise UsageError(_refused(name, value_type, quoted(text))) from None


def _refused(name: str, value_type: str, got: str) -> str:
    return f"The llama_cpp option {name} takes {_VALUE_TYPES[value_type]}, not {got}."
