"""The random model as a checkout in bfloat16, for engines that do not read GGUF.

safetensors is a JSON header followed by the tensors' bytes, so no library is needed.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from bench.random_model import ABOUT_100_M, Sizes, cache_folder, model_tensors, printable_tokens

_DEMO = Path(__file__).parent.parent / "src" / "dynemo" / "models" / "demo"
_VERSION = 1  # a folder of another version is written again
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def cached_checkout(sizes: Sizes = ABOUT_100_M, seed: int = 1) -> Path:
    """Returns the model's folder, and creates it if needed."""
    folder = cache_folder() / f"random-{sizes.width}x{sizes.layers}-seed{seed}-v{_VERSION}"
    if not (folder / "model.safetensors").exists():
        write_checkout(folder, sizes, seed)
    return folder


def write_checkout(folder: Path, sizes: Sizes, seed: int) -> None:
    """Writes the demo model's tokenizer and template, and weights of other sizes.

    Weights come last.
    """
    shutil.copytree(_DEMO / "checkout", folder, dirs_exist_ok=True)
    (folder / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **_config(sizes)}, indent=1))
    unfinished = folder / "unfinished"
    _write_tensors(unfinished, dict(_tensors(sizes, seed)))
    unfinished.replace(folder / "model.safetensors")


def _config(sizes: Sizes) -> dict[str, Any]:
    return {
        "head_dim": sizes.width // sizes.heads,
        "hidden_size": sizes.width,
        "intermediate_size": sizes.hidden,
        "max_position_embeddings": sizes.context,
        "num_attention_heads": sizes.heads,
        "num_hidden_layers": sizes.layers,
        "num_key_value_heads": sizes.kv_heads,
        "tie_word_embeddings": False,
    }


def _tensors(sizes: Sizes, seed: int) -> Iterator[tuple[str, Any]]:
    """Yields the names of a checkout, and weights in 16 bits: the upper half of a float32."""
    printable = printable_tokens(gguf.GGUFReader(_DEMO / "demo.gguf"))
    for name, weights in model_tensors(sizes, printable, np.random.default_rng(seed)):
        yield _name(name), (weights.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def _name(name: str) -> str:
    if name in _TOP:
        return _TOP[name]
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{_BLOCK[part]}.weight"


def _write_tensors(path: Path, tensors: dict[str, Any]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, weights in tensors.items():
        begin, end = end, end + weights.nbytes
        header[name] = {"dtype": "BF16", "shape": weights.shape, "data_offsets": [begin, end]}
    head = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for weights in tensors.values():
            file.write(weights.tobytes())
