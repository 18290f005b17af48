"""The source of a tokenizer as plain values, from which another process can make it again."""

from typing import Any

from msgspec import Struct


class GgufSource(Struct, frozen=True, tag="gguf"):
    """The part of a GGUF's metadata that determines its tokenizer."""

    metadata: dict[str, Any]


class HfSource(Struct, frozen=True, tag="hf"):
    """The bytes of `tokenizer.json`, and the settings of `tokenizer_config.json` that matter."""

    file: bytes
    settings: dict[str, Any]


TokenizerSource = GgufSource | HfSource
