"""Writes GGUF files for tests: any header, and models that llama.cpp can load."""

import gzip
import random
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

_F32 = 0
_WIDTH = 32
#: A tensor's name, dimensions, ggml type and data.
Tensor = tuple[str, Sequence[int], int, bytes]


def write_gguf(
    path: Path,
    metadata: Mapping[str, object],
    tensors: Sequence[Tensor] = (),
    *,
    version: int = 3,
) -> Path:
    """Writes a complete file.

    Ints become u32 if they fit, lists have one type, bytes become u8 lists.
    """
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    for key, value in metadata.items():
        head += _string(key) + _value(value)
    offset = 0
    for name, dimensions, kind, data in tensors:
        head += _string(name) + struct.pack("<I", len(dimensions))
        head += struct.pack(f"<{len(dimensions)}QIQ", *dimensions, kind, offset)
        offset += _padded(len(data))
    body = b"".join(data.ljust(_padded(len(data)), b"\0") for _, _, _, data in tensors)
    path.write_bytes(head.ljust(_padded(len(head)), b"\0") + body)
    return path


def tiny_model(path: Path, tokenizer: Mapping[str, object]) -> Path:
    """Writes one layer of random weights around a vocabulary, which llama.cpp serves quickly."""
    tokens = tokenizer["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    metadata = {
        "general.architecture": "llama",
        "llama.context_length": 256,
        "llama.embedding_length": _WIDTH,
        "llama.block_count": 1,
        "llama.feed_forward_length": _WIDTH,
        "llama.attention.head_count": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.vocab_size": len(tokens),
        **tokenizer,
    }
    shapes = {"token_embd.weight": (_WIDTH, len(tokens)), "output_norm.weight": (_WIDTH,)}
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        shapes[f"blk.0.{name}.weight"] = (_WIDTH, _WIDTH)
    for name in ("attn_norm", "ffn_norm"):
        shapes[f"blk.0.{name}.weight"] = (_WIDTH,)
    # All rows are equal, because the model's output does not matter.
    row = struct.pack(f"<{_WIDTH}f", *random.Random(1).choices((-0.1, 0.1), k=_WIDTH))
    tensors: list[Tensor] = [
        (name, shape, _F32, row * (shape[1] if len(shape) == 2 else 1))
        for name, shape in shapes.items()
    ]
    return write_gguf(path, metadata, tensors)


def _padded(length: int) -> int:
    return -(-length // 32) * 32


def _string(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(data)) + data


def _value(value: object) -> bytes:
    if isinstance(value, list):
        # Lists of numbers are token types and scores: i32 and f32, as llama.cpp requires.
        if value and isinstance(value[0], str):
            kind, items = 8, b"".join(map(_string, value))
        elif value and isinstance(value[0], float):
            kind, items = 6, struct.pack(f"<{len(value)}f", *value)
        else:
            kind, items = 5, struct.pack(f"<{len(value)}i", *value)
        return struct.pack("<IIQ", 9, kind, len(value)) + items
    if isinstance(value, bytes):
        return struct.pack("<IIQ", 9, 0, len(value)) + value
    kind, data = _kind(value)
    return struct.pack("<I", kind) + data


def _kind(value: object) -> tuple[int, bytes]:
    match value:
        case bool():
            return 7, struct.pack("<?", value)
        case int() if 0 <= value < 1 << 32:
            return 4, struct.pack("<I", value)
        case int():
            return 11, struct.pack("<q", value)
        case float():
            return 6, struct.pack("<f", value)
        case str():
            return 8, _string(value)
    raise TypeError(f"no GGUF type for {value!r}")


_FIDELITY = Path(__file__).parent.parent / "fidelity" / "gguf"
#: The vocabularies in `fidelity/gguf`.
VOCABULARIES = (
    "llama-spm",
    "phi-3",
    "gpt-2",
    "falcon",
    "deepseek-llm",
    "starcoder",
    "mpt",
    "bert-bge",
)


def unpack_vocabulary(name: str, folder: Path) -> Path:
    """Unpacks the GGUF of a real vocabulary and returns its path."""
    path = folder / f"{name}.gguf"
    if not path.exists():
        path.write_bytes(gzip.decompress((_FIDELITY / f"{path.name}.gz").read_bytes()))
    return path


def vocabulary_goldens(name: str) -> bytes:
    """Returns llama.cpp's answers for the vocabulary as lines of JSON."""
    return gzip.decompress((_FIDELITY / f"{name}.jsonl.gz").read_bytes())
