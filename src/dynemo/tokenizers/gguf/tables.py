"""A GGUF's tokenizer as plain values: what it was made from, and its tables."""

from collections.abc import Mapping

from dynemo.tokenizers.gguf.vocab import TENSOR_COUNT, Vocabulary
from dynemo.tokenizers.source import GgufSource
from dynemo.tokenizers.tables import TokenizerTables

#: `tokenizer.ggml.token_type` of unknown, control and user-defined tokens.
_ADDED = (2, 3, 4)
#: What `load_tokenizer` reads besides `tokenizer.ggml.*`: a few rules hang on a model's name.
_NAMES = (TENSOR_COUNT, "general.architecture", "general.name")


def source_of(metadata: Mapping[str, object]) -> GgufSource:
    return GgufSource(
        {k: v for k, v in metadata.items() if k.startswith("tokenizer.ggml.") or k in _NAMES}
    )


def lexicon_of(
    vocabulary: Vocabulary, source: GgufSource, *, is_byte_level: bool
) -> TokenizerTables:
    tokens = [text if text != f"[EMPTY_{i}]" else "" for i, text in enumerate(vocabulary.tokens)]
    # As the file has it: what llama.cpp infers beside it, no other form knows.
    types = source.metadata.get("tokenizer.ggml.token_type") or []
    added = frozenset(i for i, kind in enumerate(types[: len(tokens)]) if kind in _ADDED)
    merges = source.metadata.get("tokenizer.ggml.merges") if is_byte_level else None
    return TokenizerTables(tokens, added, merges)
