"""Reads numbers from the parsed JSON files of a checkout. All functions are pure.

A number that no model can have raises ModelError.

A multimodal model keeps the settings of its language model under `text_config`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from dynemo.errors import ModelError
from dynemo.limits import MODEL_WHOLE
from dynemo.spelling import shortened

Json = Mapping[str, Any]

_CONTEXT_KEYS = (
    "max_position_embeddings",
    "n_positions",  # GPT-2
    "max_seq_len",  # MPT
    "seq_length",  # ChatGLM
    "model_max_length",  # Cohere
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
#: Searched in this order; the first one with a value wins.
_NESTED = ("text_config", "llm_config", "language_config")

_GENERATION_KEYS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def layers_of(config: Json) -> Iterator[Json]:
    """Yields the configuration, then the nested ones of its language model."""
    yield config
    for key in _NESTED:
        nested = config.get(key)
        if isinstance(nested, Mapping):
            yield nested


def whole_number(config: Json, key: str) -> int | None:
    """Returns the first positive integer under `key`, also from a nested configuration, or None."""
    for layer in layers_of(config):
        value = layer.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return _checked(key, value)
    return None


def context_length(config: Json) -> int:
    """Returns the model's context in tokens, with RoPE scaling, or 0 if the file has none."""
    lengths = [length for key in _CONTEXT_KEYS if (length := whole_number(config, key))]
    if not lengths:
        return 0
    return _scaled(config, min(lengths))


def _scaled(config: Json, length: int) -> int:
    # In llama3, longrope, mrope and Gemma 3's linear scaling the length already includes the
    # factor.
    if "gemma3" in str(config.get("model_type", "")):
        return length
    for rope in _ropes(config):
        rope_type = rope.get("rope_type", rope.get("type"))
        factor = rope.get("factor")
        if rope_type not in ("linear", "dynamic", "yarn") or not isinstance(factor, int | float):
            continue
        if not 0 < factor <= MODEL_WHOLE:
            raise ModelError(
                f"The model's config.json has the RoPE factor {shortened(str(factor), 40)}, which "
                "no model has. Correct it, or download the model again."
            )
        original = rope.get("original_max_position_embeddings")
        if rope_type == "yarn" and isinstance(original, int):
            original = _checked("original_max_position_embeddings", original)
            return max(length, _checked("factor", original * factor))
        return _checked("factor", length * factor)
    return length


def _checked(key: str, value: float) -> int:
    if not 0 <= value <= MODEL_WHOLE:
        raise ModelError(
            f'The model\'s config.json has {shortened(str(value), 40)} under "{key}", or a length '
            f"that follows from it. At most {MODEL_WHOLE:,} are possible. Correct it, or download "
            "the model again."
        )
    return int(value)


def _ropes(config: Json) -> Iterator[Json]:
    for layer in layers_of(config):
        for key in ("rope_parameters", "rope_scaling"):
            rope = layer.get(key)
            if isinstance(rope, Mapping):
                yield rope
                # transformers 5 stores one per layer type if they differ.
                yield from (value for value in rope.values() if isinstance(value, Mapping))


def kv_bytes_per_token(config: Json) -> int:
    """Returns the bytes per token of a 16-bit KV cache, or 0 if the file does not tell."""
    layers = whole_number(config, "num_hidden_layers") or whole_number(config, "n_layer")
    heads = whole_number(config, "num_attention_heads") or whole_number(config, "n_head")
    if layers is None or heads is None:
        return 0
    latent = whole_number(config, "kv_lora_rank")
    if latent is not None:  # multi-head latent attention caches one small vector
        return 2 * layers * (latent + (whole_number(config, "qk_rope_head_dim") or 0))
    width = whole_number(config, "hidden_size") or whole_number(config, "n_embd") or 0
    head = whole_number(config, "head_dim") or width // heads
    return 2 * 2 * layers * (whole_number(config, "num_key_value_heads") or heads) * head


def eos_ids(*files: Json) -> list[int]:
    """Returns the ids that end a generation, from all files in order, without duplicates."""
    found: dict[int, None] = {}
    for file in files:
        for layer in layers_of(file):
            value = layer.get("eos_token_id")
            for token_id in value if isinstance(value, list) else [value]:
                if isinstance(token_id, int) and not isinstance(token_id, bool) and token_id >= 0:
                    found[_checked("eos_token_id", token_id)] = None
    return list(found)


def generation_defaults(generation: Json) -> dict[str, float]:
    """Returns the sampling settings that the model's authors recommend.

    If they recommend not to sample, that is greedy decoding.
    """
    if generation.get("do_sample") is False:
        return {"temperature": 0.0}
    return {
        key: value
        for key in _GENERATION_KEYS
        if isinstance(value := generation.get(key), int | float) and not isinstance(value, bool)
    }
