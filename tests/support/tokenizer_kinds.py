"""Tokenizers of each kind, with control tokens of one's choice."""

import json
from collections.abc import Collection
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dynemo.models.gguf import read_gguf
from dynemo.tokenizers.base import Tokenizer
from dynemo.tokenizers.gguf.tokenizer import load_tokenizer
from dynemo.tokenizers.hf.tokenizer import HfTokenizer
from support.fidelity_data import FOLDER
from support.gguf_files import unpack_vocabulary
from support.hf_twins import twin
from support.llama_vocabularies import CONTROL, Keys, gemma4, plamo, rwkv, small_bpe, t5
from support.llama_vocabularies import with_tokens as with_added

HF = ("byte-level", "metaspace", "spm twin", "bpe twin", "unigram")
GGUF = ("llama-spm", "phi-3", "gpt-2", "gemma4", "t5", "rwkv", "plamo2", "bert-bge")
KINDS = (*HF, *GGUF)


@cache
def _vocabulary(name: str) -> Keys:
    with TemporaryDirectory() as folder:
        return dict(read_gguf(unpack_vocabulary(name, Path(folder))).metadata)


def _gguf_keys(kind: str) -> Keys:
    match kind:
        case "gemma4":
            return gemma4()
        case "t5":
            keys = t5(adds_space=True, merges_spaces=False)
            charsmap: Any = keys["tokenizer.ggml.precompiled_charsmap"]
            return {**keys, "tokenizer.ggml.precompiled_charsmap": list(charsmap)}
        case "rwkv":
            return rwkv()
        case "plamo2":
            return plamo(kind)
        case "gpt-2":
            return small_bpe(_vocabulary(kind))
        case "phi-3":
            return {**_vocabulary(kind), "general.name": "Phi-3"}
        case _:
            return _vocabulary(kind)


def unigram() -> bytes:
    """Returns a `tokenizer.json` whose vocabulary itself holds the texts of control tokens."""
    characters = "abcdefghijklmnopqrstuvwxyz<>|/[]_ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789\n.,:\"'{}"
    vocab: list[Any] = [["<unk>", 0.0], ["<s>", 0.0], ["</s>", 0.0], ["▁", -2.0]]
    vocab += [[character, -5.0] for character in characters]
    added = [
        {
            "id": i,
            "content": text,
            "special": True,
            "normalized": False,
            **dict.fromkeys(("single_word", "lstrip", "rstrip"), False),
        }
        for i, text in enumerate(("<unk>", "<s>", "</s>"))
    ]
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    whole = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": metaspace,
        "post_processor": None,
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": False},
    }
    return json.dumps(whole).encode()


def tokenizer_of(kind: str, control: Collection[str]) -> Tokenizer:
    """Makes a tokenizer of this kind that has these control tokens, too."""
    settings = {"extra_special_tokens": sorted(control)}
    match kind:
        case "byte-level" | "metaspace":
            return HfTokenizer(FOLDER / f"tokenizer_{kind.replace('-', '_')}.json", settings)
        case "spm twin":
            return HfTokenizer(_twin("llama-spm", "spm"), settings)
        case "bpe twin":
            return HfTokenizer(_twin("gpt-2", "llama-bpe"), settings)
        case "unigram":
            return HfTokenizer(unigram(), settings)
    keys = _gguf_keys(kind)
    tokens: Any = keys["tokenizer.ggml.tokens"]
    added = {text: CONTROL for text in control if text not in tokens}
    keys = with_added(keys, added)
    types: Any = list(keys["tokenizer.ggml.token_type"])  # type: ignore[call-overload]
    for text in set(control) - set(added):
        types[tokens.index(text)] = CONTROL
    if scores := keys.get("tokenizer.ggml.scores"):
        keys["tokenizer.ggml.scores"] = [*scores, *[0.0] * len(added)]  # type: ignore[misc]
    return load_tokenizer({**keys, "tokenizer.ggml.token_type": types})


@cache
def _twin(name: str, split: str) -> bytes:
    keys = _vocabulary(name) if split == "spm" else small_bpe(_vocabulary(name))
    return twin(keys, split)
