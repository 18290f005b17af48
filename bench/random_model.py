"""A GGUF with random weights: a Llama of about 100 M parameters in Q8_0, with the demo's tokenizer.

Its output is meaningless, but its computing cost is real. The output matrix has no row for tokens
that are not printable text. So every token of an answer is text and causes an event.
"""

import argparse
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

_DEMO = Path(__file__).parent.parent / "src" / "dynemo" / "models" / "demo" / "demo.gguf"
_VERSION = 1  # a file of another version is written again


@dataclass(frozen=True)
class Sizes:
    width: int
    layers: int
    heads: int
    kv_heads: int
    hidden: int
    context: int = 4096


#: 103 M parameters with the demo's vocabulary of 1,536: the shape of current small models.
ABOUT_100_M = Sizes(width=768, layers=16, heads=12, kv_heads=4, hidden=2048)
#: 1 M parameters: it computes a prompt of a thousand tokens in a tenth of a second.
SMALL = Sizes(width=128, layers=4, heads=2, kv_heads=1, hidden=352)
TINY = Sizes(width=64, layers=2, heads=2, kv_heads=1, hidden=128)


def cached_model(sizes: Sizes = ABOUT_100_M, seed: int = 1) -> Path:
    """Returns the model's file, and creates it if needed."""
    name = f"random-{sizes.width}x{sizes.layers}-seed{seed}-v{_VERSION}.gguf"
    path = cache_folder() / name
    if not path.exists():
        unfinished = path.with_suffix(f".{os.getpid()}")
        write_model(unfinished, sizes, seed)
        unfinished.replace(path)
    return path


def cache_folder() -> Path:
    """Returns the folder that keeps models between measurements."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(root) / "dynemo-run" / "bench"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.gettempdir())
    return folder


def write_model(path: Path, sizes: Sizes, seed: int) -> int:
    """Writes the file. Returns its number of parameters."""
    demo = gguf.GGUFReader(_DEMO)
    writer = gguf.GGUFWriter(path, "llama")
    _write_sizes(writer, sizes)
    _copy_tokenizer(demo, writer)
    parameters = 0
    for name, weights in model_tensors(sizes, printable_tokens(demo), np.random.default_rng(seed)):
        parameters += weights.size
        if weights.ndim == 1:
            writer.add_tensor(name, weights)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return parameters


def _write_sizes(writer: Any, sizes: Sizes) -> None:
    writer.add_name("random")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_context_length(sizes.context)
    writer.add_embedding_length(sizes.width)
    writer.add_block_count(sizes.layers)
    writer.add_feed_forward_length(sizes.hidden)
    writer.add_head_count(sizes.heads)
    writer.add_head_count_kv(sizes.kv_heads)
    writer.add_rope_dimension_count(sizes.width // sizes.heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)


def _copy_tokenizer(demo: Any, writer: Any) -> None:
    for name, field in demo.fields.items():
        if name.startswith("tokenizer."):
            kind, *element = field.types
            writer.add_key_value(name, field.contents(), kind, *element[-1:])
    writer.add_vocab_size(len(_tokens(demo)))


def _tokens(demo: Any) -> list[str]:
    tokens: list[str] = demo.fields["tokenizer.ggml.tokens"].contents()
    return tokens


def printable_tokens(demo: Any) -> list[bool]:
    """Returns which tokens are printable ASCII or spaces, after decoding byte-level BPE."""
    kinds = demo.fields["tokenizer.ggml.token_type"].contents()
    normal = gguf.TokenType.NORMAL
    texts = (token.replace("Ġ", "a") for token in _tokens(demo))
    return [kind == normal and text.isascii() for text, kind in zip(texts, kinds, strict=True)]


def model_tensors(sizes: Sizes, printable: list[bool], rng: Any) -> Any:
    width, hidden = sizes.width, sizes.hidden
    kv_width = width // sizes.heads * sizes.kv_heads

    def matrix(rows: int, columns: int) -> Any:
        weights = rng.standard_normal((rows, columns), dtype=np.float32)
        return weights / np.float32(columns**0.5)

    yield "token_embd.weight", matrix(len(printable), width)
    for layer in range(sizes.layers):
        block = f"blk.{layer}."
        yield block + "attn_norm.weight", np.ones(width, np.float32)
        yield block + "attn_q.weight", matrix(width, width)
        yield block + "attn_k.weight", matrix(kv_width, width)
        yield block + "attn_v.weight", matrix(kv_width, width)
        yield block + "attn_output.weight", matrix(width, width)
        yield block + "ffn_norm.weight", np.ones(width, np.float32)
        yield block + "ffn_gate.weight", matrix(hidden, width)
        yield block + "ffn_up.weight", matrix(hidden, width)
        yield block + "ffn_down.weight", matrix(width, hidden)
    yield "output_norm.weight", np.ones(width, np.float32)
    yield "output.weight", matrix(len(printable), width) * np.array(printable)[:, None]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.random_model", description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--tiny", action="store_true", help="write a tiny model for a quick test")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    parameters = write_model(given.path, TINY if given.tiny else ABOUT_100_M, given.seed)
    print(f"{given.path}: {parameters / 1e6:.1f} M parameters")


if __name__ == "__main__":
    main()
