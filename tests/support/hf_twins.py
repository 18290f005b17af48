"""Makes a `tokenizer.json` from a GGUF's vocabulary, like the one of the model's authors."""

import json
from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
_PLAIN_BYTE_LEVEL = {**_BYTE_LEVEL, "use_regex": False}
_DIGITS = {"type": "Digits", "individual_digits": True}


def _split(pattern: str) -> Json:
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }


def _row(*steps: Json) -> Json:
    return {"type": "Sequence", "pretokenizers": list(steps)}


_BYTE_LEVEL_SPLITS = {
    "gpt-2": _row({**_BYTE_LEVEL, "use_regex": True}),
    "mpt": _row({**_BYTE_LEVEL, "use_regex": True}),
    "starcoder": _row(_DIGITS, {**_BYTE_LEVEL, "use_regex": True}),
    "falcon": _row(
        {"type": "Punctuation", "behavior": "Contiguous"},
        {**_BYTE_LEVEL, "use_regex": True},
        {"type": "Digits", "individual_digits": False},
        _split("[0-9][0-9][0-9]"),
    ),
    "llama-bpe": _row(
        _split(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
        _PLAIN_BYTE_LEVEL,
    ),
}


def twin(metadata: Mapping[str, Any], split: str) -> bytes:
    """Returns a `tokenizer.json`. `split` names a byte-level way to split text, or is "spm"."""
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    types: list[int] = metadata["tokenizer.ggml.token_type"]
    added = [
        {
            "id": i,
            "content": text,
            "special": kind != 4,
            "normalized": False,
            **dict.fromkeys(("single_word", "lstrip", "rstrip"), False),
        }
        for i, (text, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (2, 3, 4)
    ]
    vocab = {text: i for i, text in enumerate(tokens) if types[i] != 5}
    model: Json = {"type": "BPE", "vocab": vocab, "dropout": None, "unk_token": None}
    whole: Json = {"version": "1.0", "added_tokens": added, "post_processor": None}
    whole["normalizer"] = None
    if split == "spm":
        scores = metadata["tokenizer.ggml.scores"]
        model.update(merges=_pairs(vocab, scores), unk_token="<unk>", byte_fallback=True)
        model["fuse_unk"] = True
        space: Json = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        start = {"type": "Prepend", "prepend": "▁"}
        whole["normalizer"] = {"type": "Sequence", "normalizers": [start, space]}
        whole["pre_tokenizer"] = None
        steps: list[Json] = [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]
        whole["decoder"] = {"type": "Sequence", "decoders": steps}
    else:
        model["merges"] = [line.split(" ") for line in metadata["tokenizer.ggml.merges"]]
        model["ignore_merges"] = split == "llama-bpe"
        whole["pre_tokenizer"] = _BYTE_LEVEL_SPLITS[split]
        whole["decoder"] = {**_BYTE_LEVEL, "use_regex": True}
    return json.dumps({**whole, "model": model}).encode()


def _pairs(vocab: Mapping[str, int], scores: list[float]) -> list[list[str]]:
    """Makes merges from SentencePiece's scores, like `generate_merges` of transformers."""
    merges = []
    for text, i in vocab.items():
        cuts = [(text[:at], text[at:]) for at in range(1, len(text))]
        halves = [(a, b) for a, b in cuts if a in vocab and b in vocab]
        halves.sort(key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
        merges += [(scores[i], a, b) for a, b in halves]
    merges.sort(key=lambda merge: (merge[0], len(merge[1]), len(merge[2])), reverse=True)
    return [[a, b] for _, a, b in merges]
