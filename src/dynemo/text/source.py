"""What a tokenizer was made from, as plain values, so that another process can make it again."""

from typing import Any

from msgspec import Struct

from dynemo.text.tokenizer import Tokenizer


class GgufSource(Struct, frozen=True, tag="gguf"):
    """The part of a GGUF's metadata that decides what its tokenizer does."""

    metadata: dict[str, Any]


class HfSource(Struct, frozen=True, tag="hf"):
    """`tokenizer.json` byte for byte, and what counts of `tokenizer_config.json`."""

    file: bytes
    settings: dict[str, Any]


TokenizerSource = GgufSource | HfSource


def load(source: TokenizerSource) -> Tokenizer:
    """The tokenizer again. Raises ModelError where the source is none."""
    # Whoever serves GGUFs alone does not wait for the other's modules.
    if isinstance(source, GgufSource):
        from dynemo.text.llama import load_tokenizer

        return load_tokenizer(source.metadata)
    from dynemo.text.hf_tokenizer import HfTokenizer

    return HfTokenizer(source.file, source.settings)
