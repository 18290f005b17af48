"""What the JSON files of a checkout say, as numbers. Pure functions over parsed files.

A model that sees or hears keeps its language model's figures under `text_config`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

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
#: Nested in this order: the first that has a figure wins.
_NESTED = ("text_config", "llm_config", "language_config")

_GENERATION_KEYS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def layers_of(config: Json) -> Iterator[Json]:
    """The configuration, and the one of the language model inside it."""
    yield config
    for key in _NESTED:
        nested = config.get(key)
        if isinstance(nested, Mapping):
            yield nested


def whole_number(config: Json, key: str) -> int | None:
    """A figure that counts something, wherever in the configuration it is."""
    for layer in layers_of(config):
        value = layer.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def context_length(config: Json) -> int:
    """Tokens that the model was made for, RoPE scaling included; 0 where the file does not say."""
    lengths = [length for key in _CONTEXT_KEYS if (length := whole_number(config, key))]
    if not lengths:
        return 0
    return _scaled(config, min(lengths))


def _scaled(config: Json, length: int) -> int:
    # llama3, longrope, mrope and Gemma 3's linear scaling are counted in the length already.
    if "gemma3" in str(config.get("model_type", "")):
        return length
    for rope in _ropes(config):
        kind = rope.get("rope_type", rope.get("type"))
        factor = rope.get("factor")
        if kind not in ("linear", "dynamic", "yarn") or not isinstance(factor, int | float):
            continue
        original = rope.get("original_max_position_embeddings")
        if kind == "yarn" and isinstance(original, int):
            return max(length, int(original * factor))
        return int(length * factor)
    return length


def _ropes(config: Json) -> Iterator[Json]:
    for layer in layers_of(config):
        for key in ("rope_parameters", "rope_scaling"):
            rope = layer.get(key)
            if isinstance(rope, Mapping):
                yield rope
                # transformers 5 keeps one for each kind of layer where they differ.
                yield from (value for value in rope.values() if isinstance(value, Mapping))


def kv_bytes_per_token(config: Json) -> int:
    """Bytes that one token takes in a 16-bit KV cache; 0 where the file does not say."""
    layers = whole_number(config, "num_hidden_layers") or whole_number(config, "n_layer")
    heads = whole_number(config, "num_attention_heads") or whole_number(config, "n_head")
    if layers is None or heads is None:
        return 0
    latent = whole_number(config, "kv_lora_rank")
    if latent is not None:  # multi-head latent attention keeps one small vector
        return 2 * layers * (latent + (whole_number(config, "qk_rope_head_dim") or 0))
    width = whole_number(config, "hidden_size") or whole_number(config, "n_embd") or 0
    head = whole_number(config, "head_dim") or width // heads
    return 2 * 2 * layers * (whole_number(config, "num_key_value_heads") or heads) * head


def eos_ids(*files: Json) -> list[int]:
    """The ids that end a generation, from all of the files, in their order, each once."""
    found: dict[int, None] = {}
    for file in files:
        for layer in layers_of(file):
            value = layer.get("eos_token_id")
            for token_id in value if isinstance(value, list) else [value]:
                if isinstance(token_id, int) and not isinstance(token_id, bool) and token_id >= 0:
                    found[token_id] = None
    return list(found)


def generation_defaults(generation: Json) -> dict[str, float]:
    """The sampling that the model's authors advise; greedy where they say not to sample."""
    if generation.get("do_sample") is False:
        return {"temperature": 0.0}
    return {
        key: value
        for key in _GENERATION_KEYS
        if isinstance(value := generation.get(key), int | float) and not isinstance(value, bool)
    }
