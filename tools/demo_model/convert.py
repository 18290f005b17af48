"""Converts the demo model's checkout to GGUF: convert.py CHECKOUT OUT.gguf --type f32|q8_0.

It needs only numpy and gguf, so that tests can convert the checkout to F32.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np

Array = np.ndarray[Any, np.dtype[np.float32]]
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
FILE_TYPES = {"f32": gguf.LlamaFileType.ALL_F32, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}


def read_safetensors(path: Path) -> dict[str, Array]:
    """Returns all tensors as float32; bf16 is the upper half of a float32."""
    data = path.read_bytes()
    header_end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:header_end])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] != "BF16":
            raise ValueError(f"{path}: {name} is {entry['dtype']}, but only BF16 is supported")
        start, end = (header_end + offset for offset in entry["data_offsets"])
        halves = np.frombuffer(data[start:end], dtype="<u2").astype(np.uint32) << 16
        tensors[name] = halves.view(np.float32).reshape(entry["shape"])
    return tensors


def interleave(weight: Array, heads: int) -> Array:
    """Reorders rows: llama.cpp rotates adjacent rows, the checkout rows half a head apart."""
    rows, columns = weight.shape
    return (
        weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
    )


def gguf_name(name: str) -> str:
    whole = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
    }
    if name in whole:
        return whole[name]
    _, _, number, part = name.removesuffix(".weight").split(".", 3)
    return f"blk.{number}.{NAMES[part]}.weight"


def add_model(writer: gguf.GGUFWriter, config: dict[str, Any], file_type: str) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name("demo")
    writer.add_basename("demo")
    writer.add_description("The tiny demo model of dynemo-run, made for testing")
    writer.add_license("apache-2.0")
    writer.add_languages(["en"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_float32("general.sampling.temp", 0.0)  # greedy, as in generation_config.json
    writer.add_file_type(FILE_TYPES[file_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def add_tokenizer(writer: gguf.GGUFWriter, checkout: Path, config: dict[str, Any]) -> None:
    tokenizer = json.loads((checkout / "tokenizer.json").read_text(encoding="utf-8"))
    special = {entry["content"]: entry["id"] for entry in tokenizer["added_tokens"]}
    ids = tokenizer["model"]["vocab"] | special
    tokens = sorted(ids, key=lambda token: ids[token])
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types([control if token in special else normal for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"][0])
    writer.add_eot_token_id(config["eos_token_id"][0])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(True)
    writer.add_chat_template((checkout / "chat_template.jinja").read_text(encoding="utf-8"))


def add_tensors(
    writer: gguf.GGUFWriter, checkout: Path, config: dict[str, Any], file_type: str
) -> None:
    for name, tensor in read_safetensors(checkout / "model.safetensors").items():
        if "q_proj" in name:
            tensor = interleave(tensor, config["num_attention_heads"])
        elif "k_proj" in name:
            tensor = interleave(tensor, config["num_key_value_heads"])
        if file_type == "q8_0" and tensor.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(gguf_name(name), gguf.quantize(tensor, kind), raw_dtype=kind)
        else:
            writer.add_tensor(gguf_name(name), np.ascontiguousarray(tensor))


def convert(checkout: Path, out: Path, file_type: str) -> None:
    config = json.loads((checkout / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(out, "llama")
    add_model(writer, config, file_type)
    add_tokenizer(writer, checkout, config)
    add_tensors(writer, checkout, config, file_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--type", choices=sorted(FILE_TYPES), default="q8_0")
    arguments = parser.parse_args()
    convert(arguments.checkout, arguments.out, arguments.type)


if __name__ == "__main__":
    main()
