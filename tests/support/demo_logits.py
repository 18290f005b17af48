"""Computes the demo model in float32: the probabilities of each next token."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dynemo.models.find import demo_checkout

Array = np.ndarray[Any, np.dtype[np.float32]]


class DemoLogits:
    """The demo model, with the bfloat16 weights of its checkout.

    It has the architecture of Llama: RMS norms, rotary positions, SwiGLU.
    """

    def __init__(self) -> None:
        self._config = json.loads((demo_checkout() / "config.json").read_text())
        self._weights = _read(demo_checkout() / "model.safetensors")

    def log_probabilities(self, ids: list[int]) -> Array:
        """Returns the log-probability of each token after `ids`, by token id."""
        hidden = self._weights["model.embed_tokens.weight"][ids]
        for layer in range(self._config["num_hidden_layers"]):
            name = f"model.layers.{layer}."
            x = self._norm(name + "input_layernorm", hidden)
            hidden = hidden + self._attend(name, x)
            x = self._norm(name + "post_attention_layernorm", hidden)
            hidden = hidden + self._feed(name, x)
        last = self._norm("model.norm", hidden[-1:])[0]
        logits = self._weights["model.embed_tokens.weight"] @ last
        shifted = logits - logits.max()
        return np.asarray(shifted - np.log(np.exp(shifted).sum()), np.float32)

    def _norm(self, name: str, x: Array) -> Array:
        scale = np.sqrt((x * x).mean(-1, keepdims=True) + self._config["rms_norm_eps"])
        return np.asarray(x / scale * self._weights[name + ".weight"], np.float32)

    def _linear(self, name: str, x: Array) -> Array:
        return np.asarray(x @ self._weights[name + ".weight"].T, np.float32)

    def _attend(self, name: str, x: Array) -> Array:
        size, heads = self._config["head_dim"], self._config["num_attention_heads"]
        shared = heads // self._config["num_key_value_heads"]
        q, k, v = (
            self._linear(f"{name}self_attn.{part}_proj", x).reshape(len(x), -1, size)
            for part in "qkv"
        )
        q, k = self._turned(q), self._turned(k)
        future = np.triu(np.full((len(x), len(x)), -np.inf, np.float32), 1)
        mixed = []
        for head in range(heads):
            scores = q[:, head] @ k[:, head // shared].T / np.sqrt(size) + future
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            mixed.append(weights @ v[:, head // shared])
        return self._linear(name + "self_attn.o_proj", np.concatenate(mixed, -1))

    def _turned(self, x: Array) -> Array:
        half = x.shape[-1] // 2
        cos, sin = self._angles
        a, b = x[..., :half], x[..., half:]
        cos, sin = cos[: len(x), None], sin[: len(x), None]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    @cached_property
    def _angles(self) -> tuple[Array, Array]:
        half = self._config["head_dim"] // 2
        rates = self._config["rope_theta"] ** -(np.arange(half, dtype=np.float64) / half)
        angles = np.outer(np.arange(self._config["max_position_embeddings"]), rates)
        return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    def _feed(self, name: str, x: Array) -> Array:
        gate = self._linear(name + "mlp.gate_proj", x)
        gate = gate / (1 + np.exp(-gate))
        return self._linear(
            name + "mlp.down_proj", np.asarray(gate * self._linear(name + "mlp.up_proj", x))
        )


def _read(path: Path) -> dict[str, Array]:
    """Reads the bfloat16 tensors of a safetensors file as float32."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + size])
    tensors = {}
    for name, entry in entries.items():
        if name == "__metadata__":
            continue
        assert entry["dtype"] == "BF16"
        start, end = entry["data_offsets"]
        halves = np.frombuffer(data[8 + size + start : 8 + size + end], "<u2")
        tensors[name] = (halves.astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])
    return tensors
