"""What a tokenizer was made from, as plain values, so that another process can make it again."""

from typing import Any

from msgspec import Struct


class GgufSource(Struct, frozen=True, tag="gguf"):
    """The part of a GGUF's metadata that decides what its tokenizer does."""

    metadata: dict[str, Any]


class HfSource(Struct, frozen=True, tag="hf"):
    """`tokenizer.json` byte for byte, and what counts of `tokenizer_config.json`."""

    file: bytes
    settings: dict[str, Any]


TokenizerSource = GgufSource | HfSource
