"""Returns a GGUF's tokenizer as plain values: its source and its lookup tables."""

from collections.abc import Mapping

from dynemo.tokenizers.gguf.vocab import TENSOR_COUNT, Vocabulary
from dynemo.tokenizers.source import GgufSource
from dynemo.tokenizers.tables import TokenizerTables

#: The `tokenizer.ggml.token_type` of unknown, control and user-defined tokens.
_ADDED = (2, 3, 4)
#: Keys that `load_tokenizer` reads besides `tokenizer.ggml.*`. A few rules depend on a model's
#: name.
_NAMES = (TENSOR_COUNT, "general.architecture", "general.name")


def source_of(metadata: Mapping[str, object]) -> GgufSource:
    return GgufSource(
        {k: v for k, v in metadata.items() if k.startswith("tokenizer.ggml.") or k in _NAMES}
    )


def tables_of(
    vocabulary: Vocabulary, source: GgufSource, *, is_byte_level: bool
) -> TokenizerTables:
    tokens = [text if text != f"[EMPTY_{i}]" else "" for i, text in enumerate(vocabulary.tokens)]
    # The types of the file, without those that llama.cpp infers: no other file format has the
    # latter.
    types = source.metadata.get("tokenizer.ggml.token_type") or []
    added = frozenset(
        i for i, token_type in enumerate(types[: len(tokens)]) if token_type in _ADDED
    )
    merges = source.metadata.get("tokenizer.ggml.merges") if is_byte_level else None
    return TokenizerTables(tokens, added, merges)
