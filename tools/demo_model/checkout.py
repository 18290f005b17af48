"""Writes the trained model as a Hugging Face checkout in bf16."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from encode import BEGIN, END, TEMPLATE_FILE, TURN_END, settings
from model import Llama, Shape
from safetensors.torch import save_file
from tasks import MARK

from tokenizers import Tokenizer

SHARPNESS = 2.0


def config(shape: Shape, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": tokenizer.token_to_id(BEGIN),
        "eos_token_id": [tokenizer.token_to_id(TURN_END), tokenizer.token_to_id(END)],
        "pad_token_id": tokenizer.token_to_id(MARK),
        "head_dim": shape.head_size,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate,
        "max_position_embeddings": shape.context,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "pretraining_tp": 1,
        "rms_norm_eps": shape.norm_eps,
        "rope_scaling": None,
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": shape.vocab,
    }


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_checkout(folder: Path, model: Llama, tokenizer: Tokenizer) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    whole = config(model.shape, tokenizer)
    write_json(folder / "config.json", whole)
    ids = {key: whole[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    # Greedy unless a request sets a temperature: such a small model knows its answers by heart.
    write_json(folder / "generation_config.json", ids | {"do_sample": False})
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    special = {
        str(number): token for number, token in sorted(tokenizer.get_added_tokens_decoder().items())
    }
    described = {
        number: {
            "content": token.content,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for number, token in special.items()
    }
    write_json(
        folder / "tokenizer_config.json",
        settings(model.shape.context) | {"added_tokens_decoder": described},
    )
    shutil.copyfile(TEMPLATE_FILE, folder / "chat_template.jinja")
    save_file(tensors(model), str(folder / "model.safetensors"), metadata={"format": "pt"})


def tensors(model: Llama) -> dict[str, torch.Tensor]:
    """Returns the weights in bf16, with all logits multiplied by SHARPNESS.

    The best answer stays the same. But servers often use temperature 1 if a client sets none. At
    that temperature such a small model would miss a word now and then.
    """
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    weights["model.norm.weight"] *= SHARPNESS
    return {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in weights.items()}
