"""Converts a GGUF's SentencePiece vocabulary to a `tokenizer.json`.

mistral.rs treats such a vocabulary as a Unigram model. Its best segmentation differs from the
merges by score that the model was trained with: "Hello" became five tokens. No errors are known in
its own conversion of BPE vocabularies. It refuses others by name.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import json

from dynemo.models.gguf import read_gguf
from dynemo.tokenizers.gguf.vocab import (
    CONTROL,
    LSTRIP,
    RSTRIP,
    UNKNOWN,
    USER_DEFINED,
    Vocabulary,
    flag,
    load_vocabulary,
)

_SPACE = "▁"


def tokenizer_json(gguf: Path) -> bytes | None:
    """Returns a `tokenizer.json`, or None for another type of vocabulary. Raises ModelError."""
    metadata = read_gguf(gguf).metadata
    if metadata.get("tokenizer.ggml.model") != "llama":
        return None
    return json.encode(_tokenizer(load_vocabulary(metadata), metadata))


def _tokenizer(vocabulary: Vocabulary, metadata: Mapping[str, object]) -> dict[str, Any]:
    unknown = vocabulary.special.unk
    escape = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    prefix = {"type": "Prepend", "prepend": _SPACE}
    has_prefix = flag(metadata, "add_space_prefix", True)
    return {
        "version": "1.0",
        "added_tokens": list(_added(vocabulary)),
        "normalizer": {"type": "Sequence", "normalizers": [prefix] * has_prefix + [escape]},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "unk_token": None if unknown is None else vocabulary.tokens[unknown],
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocabulary.ids,
            "merges": _merges(vocabulary),
        },
    }


def _added(vocabulary: Vocabulary) -> Iterator[dict[str, Any]]:
    for token_id, attribute in enumerate(vocabulary.attributes):
        if attribute & (CONTROL | UNKNOWN | USER_DEFINED):
            yield {
                "id": token_id,
                "content": vocabulary.tokens[token_id],
                "single_word": False,
                "lstrip": bool(attribute & LSTRIP),
                "rstrip": bool(attribute & RSTRIP),
                "normalized": False,
                "special": not attribute & USER_DEFINED,
            }


def _merges(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Returns every pair of tokens that joins to a third token, highest score first."""
    ids = vocabulary.ids
    pairs = [
        (-score, word[:at], word[at:])
        for word, score in zip(vocabulary.tokens, vocabulary.scores, strict=False)
        for at in range(1, len(word))
        if word[:at] in ids and word[at:] in ids
    ]
    pairs.sort(key=lambda pair: pair[0])
    return [(left, right) for _, left, right in pairs]
