"""llama.cpp's parameters for one host: defaults from the model, and the user's own options."""

from collections.abc import Iterator, Mapping
from typing import Any

from dynemo.engines.options import in_json, unknown_argument, unknown_option
from dynemo.errors import UsageError
from dynemo.messages.spec import EngineSpec
from dynemo.spelling import quoted

#: Tokens of context where neither the user nor the model says less: the KV cache grows with it.
_CONTEXT = 8192
_MOST_SLOTS = 8
#: A model this small is computed faster by one thread than by two that wait for each other.
_SMALL = 32 * 1024 * 1024
#: The share of free memory that the KV cache of all slots may take.
_KV_SHARE = 0.25

#: llama-server's names for what may follow `--`: the parameter they set, and how it is read.
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
#: Those of ggml's types that llama.cpp keeps a cache in.
_CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
#: How each kind is told to who gave something else.
_TAKES = {
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
#: As many slots as llama.cpp has sequences for (LLAMA_MAX_SEQ), and more threads than cores make no
#: sense either.
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
    """`xllamacpp.CommonParams` for this host. Raises UsageError for an option it does not know."""
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
    apply_options(params, [*_as_words(spec.extra), *spec.options])
    params.n_ctx = context * params.n_parallel
    if params.embedding:
        _prepare_embedding(params, context, spec)
    params.n_threads_http = params.n_parallel + 6  # each open answer holds one of its threads
    return params


def _prepare_embedding(params: Any, context: int, spec: EngineSpec) -> None:
    """A text is embedded in one piece; a model whose files name no pooling gets the mean.

    With a cache for each sequence, llama.cpp's mean and first state of a batch are wrong: those of
    one text change with what else is embedded at once. With one cache for all they are right.
    """
    import xllamacpp

    params.n_batch = params.n_ubatch = context
    params.kv_unified = True
    kinds = xllamacpp.llama_pooling_type
    if not spec.embeds and params.pooling_type == kinds.LLAMA_POOLING_TYPE_UNSPECIFIED:
        params.pooling_type = kinds.LLAMA_POOLING_TYPE_MEAN


def _slots(context: int, kv_bytes_per_token: int) -> int:
    import xllamacpp

    free = max((device["memory_free"] for device in xllamacpp.get_device_info()), default=0)
    affordable = int(free * _KV_SHARE) // max(context * kv_bytes_per_token, 1)
    return max(1, min(_MOST_SLOTS, affordable))


def device_name(params: Any) -> str:
    """Where the layers are: `cpu`, or the first accelerator that this build knows (`metal`)."""
    import xllamacpp

    cpu = xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU
    others = [d["name"].lower() for d in xllamacpp.get_device_info() if d["type"] != cpu]
    return others[0] if others and params.n_gpu_layers != 0 else "cpu"


def _as_words(extra: Mapping[str, Any]) -> Iterator[str]:
    """What --extra-engine-args holds, as it would stand after `--`."""
    for name, value in extra.items():
        flag = "--" + name.replace("_", "-")
        if flag not in _OPTIONS:
            raise unknown_argument("llama_cpp", name, [each[2:] for each in _OPTIONS])
        _, kind = _OPTIONS[flag]
        if not (value is True if kind in _FLAGS else type(value) in (str, int, float)):
            raise UsageError(_refused(flag, kind, in_json(value)))
        yield flag if kind in _FLAGS else f"{flag}={value}"


def apply_options(params: Any, options: list[str]) -> None:
    """Sets what the user gave after `--`, in llama-server's words: `--name value` or with `=`."""
    rest = list(options)
    while rest:
        word = rest.pop(0)
        name, equals, text = word.partition("=") if word.startswith("--") else (word, "", "")
        if _SHORT.get(name, name) not in _OPTIONS:
            raise unknown_option("llama_cpp", name, _OPTIONS)
        field, kind = _OPTIONS[_SHORT.get(name, name)]
        if kind in _FLAGS and equals:
            raise UsageError(f"llama_cpp's option {name} takes no value, but got {quoted(text)}.")
        if kind in _FLAGS:
            value: Any = kind == "flag"
        elif not equals and not rest:
            raise UsageError(f"llama_cpp's option {name} needs a value after it.")
        else:
            value = _value(name, kind, text if equals else rest.pop(0))
        target = params
        *path, last = field.split(".")
        for part in path:
            target = getattr(target, part)
        setattr(target, last, value)


def _number(kind: str, text: str) -> float:
    """Raises ValueError for one that llama.cpp would end at, or compute nonsense with."""
    number = float(text) if kind == "float" else int(text)
    least, most = _RANGES[kind]
    if not least <= number <= most:  # nor NaN
        raise ValueError
    return number


def _value(name: str, kind: str, text: str) -> Any:
    import xllamacpp

    try:
        if kind in _RANGES:
            return _number(kind, text)
        if kind == "flash":
            word = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}[text]
            return getattr(xllamacpp.llama_flash_attn_type, f"LLAMA_FLASH_ATTN_TYPE_{word}")
        if kind == "pooling":
            word = {"mean": "MEAN", "cls": "CLS", "last": "LAST"}[text]
            return getattr(xllamacpp.llama_pooling_type, f"LLAMA_POOLING_TYPE_{word}")
        at = _CACHE_TYPES.index(text.lower())
        return getattr(xllamacpp.ggml_type, f"GGML_TYPE_{_CACHE_TYPES[at].upper()}")
    except (ValueError, KeyError):
        raise UsageError(_refused(name, kind, quoted(text))) from None


def _refused(name: str, kind: str, got: str) -> str:
    return f"llama_cpp's option {name} takes {_TAKES[kind]}, not {got}."
