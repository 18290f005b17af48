"""Small vocabularies for each kind of llama.cpp's tokenizers."""

import random
import struct
from collections.abc import Mapping
from typing import Any, TypeAlias

from dynemo.tokenizers.gguf.bpe import BYTE_ALPHABET

#: The `tokenizer.*` keys of a GGUF.
Keys: TypeAlias = dict[str, object]

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]


def small_bpe(metadata: Mapping[str, object], merges: int = 2000) -> Keys:
    """Returns the first merges of a byte-level BPE vocabulary, and some tokens without a merge."""
    tokens: Any = metadata["tokenizer.ggml.tokens"]
    lines: Any = metadata["tokenizer.ggml.merges"]
    unreached = "文字".encode().decode("latin-1").translate(BYTE_ALPHABET)
    kept = dict.fromkeys(tokens[:256])
    kept |= dict.fromkeys(line.replace(" ", "") for line in lines[:merges])
    kept |= dict.fromkeys(["Ġworldwide", "123", "12", "ĊĊĊĊ", unreached])
    special = {"<|endoftext|>": CONTROL, "<|user|>": CONTROL, "<|x|>": USER}
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [*kept, *special],
        "tokenizer.ggml.merges": lines[:merges],
        "tokenizer.ggml.token_type": [NORMAL] * len(kept) + list(special.values()),
        "tokenizer.ggml.bos_token_id": len(kept),
        "tokenizer.ggml.eos_token_id": len(kept),
    }


def with_tokens(keys: Keys, added: Mapping[str, int]) -> Keys:
    tokens: Any = keys["tokenizer.ggml.tokens"]
    types: Any = keys["tokenizer.ggml.token_type"]
    return {
        **keys,
        "tokenizer.ggml.tokens": [*tokens, *added],
        "tokenizer.ggml.token_type": [*types, *added.values()],
    }


_SPM_LIKE = (
    "▁ ▁,▁▁ ▁▁,t h,th e,▁ the,▁t he,h e,l l,he ll,hell o,▁ w,▁w o,r l,rl d,▁wo rld,1 2,12 3,. ▁,"
    ".▁ A,o ▁w,e r,文 字,i n,▁ a,a n,an d,▁a nd,e ▁,▁▁▁▁ ▁,\n \n,\n\n \n"
)


def gemma4() -> Keys:
    """Returns BPE over characters, with U+2581 for spaces and tokens for bytes."""
    merges = _SPM_LIKE.split(",")
    chars = [*"abcdefghijklmnopqrstuvwxyzABCDEFHIJLMNOPRSTUVWY0123456789.,!?'-\n\t▁é文字😀"]
    joined = [line.replace(" ", "") for line in merges]
    plain = dict.fromkeys([*chars, "\n\n", "\n\n\n", "▁▁", "▁▁▁▁", *joined])
    special = {"<start_of_turn>": CONTROL, "<end_of_turn>": CONTROL, "[tool]": USER}
    return {
        "tokenizer.ggml.model": "gemma4",
        "tokenizer.ggml.tokens": [
            *("<pad>", "<eos>", "<bos>", "<unk>"), *BYTE_TOKENS, *plain, *special,
        ],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.token_type": [
            *(CONTROL, CONTROL, CONTROL, UNKNOWN), *[BYTE] * 256, *[NORMAL] * len(plain),
            *special.values(),
        ],
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.unknown_token_id": 3,
    }  # fmt: skip


_T5_WORDS = (
    "▁ ▁the the ▁a a b c e h t n d an and ▁and w o r l wor world ▁w ▁world fi f i 1 12 123 2 3 "
    ". , ! 文 字 文字 ガ e\u0301 ▁▁ st s ing in g ▁in A B ab! ' ll hello ▁hello < > |"
)


def t5(*, adds_space: bool, merges_spaces: bool) -> Keys:
    words = _T5_WORDS.split()
    scores = random.Random(3)
    special = {"<extra_id_0>": USER, "<extra_id_1>": USER, "▁unused": UNUSED, "ñx": USER}
    charsmap = {
        "\u00a0": " ", "\u3000": " ", "ﬁ": "fi", "Ａ": "A", "é": "e\u0301", "ＡＢ": "ab!",
        "\t": " ", "\n": " ", "①": "1", "ｶﾞ": "ガ", "\u200d": "",
    }  # fmt: skip
    return {
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.tokens": ["<pad>", "</s>", "<unk>", *words, *special],
        "tokenizer.ggml.token_type": [
            *(CONTROL, CONTROL, UNKNOWN), *[NORMAL] * len(words), *special.values(),
        ],
        "tokenizer.ggml.scores": [
            *[0.0] * 3, *(-scores.uniform(2, 12) for _ in words), 0.0, 0.0, -3.0, 0.0,
        ],
        "tokenizer.ggml.precompiled_charsmap": _charsmap(charsmap),
        "tokenizer.ggml.add_space_prefix": adds_space,
        "tokenizer.ggml.remove_extra_whitespaces": merges_spaces,
    }  # fmt: skip


def _charsmap(replacements: Mapping[str, str]) -> bytes:
    """Returns SentencePiece's compiled map: a double array over UTF-8 bytes, and the texts."""
    texts = b""
    trie: dict[int, Any] = {}
    for key, text in replacements.items():
        node = trie
        for byte in key.encode():
            node = node.setdefault(byte, {})
        node[-1] = len(texts)
        texts += text.encode() + b"\0"
    units = {0: 0}
    bases: set[int] = set()

    def place(node: dict[int, Any], at: int) -> None:
        labels = [max(label, 0) for label in node]
        base = 1
        while base in bases or any(base ^ label in units for label in labels):
            base += 1
        bases.add(base)
        units.update({base ^ label: label for label in labels})
        units[at] |= (base ^ at) << 10 | (-1 in node) << 8
        for label, child in node.items():
            if label == -1:
                units[base] = child | 1 << 31
            else:
                place(child, base ^ label)

    place(trie, 0)
    blob = struct.pack(f"<{max(units) + 256}I", *(units.get(i, 0) for i in range(max(units) + 256)))
    return struct.pack("<I", len(blob)) + blob + texts


_RWKV_WORDS = r"\n\n \\n \t\t \xe6\x96 \'x the hello world 12 123 文 文字 é"


def rwkv() -> Keys:
    escaped = _RWKV_WORDS.split()
    plain = dict.fromkeys([*(f"\\x{byte:02x}" for byte in range(256)), *escaped, " the", "  "])
    return {
        "tokenizer.ggml.model": "rwkv",
        "tokenizer.ggml.tokens": ["<s>", *plain, "<|user|>", "[x]"],
        "tokenizer.ggml.token_type": [CONTROL, *[NORMAL] * len(plain), CONTROL, USER],
    }


_PLAMO_WORDS = (
    "the,th,he, the,a,b,c,e,h,t,hello,hell,o,l,lo, world,wor,ld, ,  ,   ,    ,\n,\n\n,1,12,123,"
    "文,字,文字,é,.,aaaa,aa,</s>,<s>,ing,in,n,g,.5,!"
)


def plamo(kind: str) -> Keys:
    words = _PLAMO_WORDS.split(",")
    scores = random.Random(3)
    return {
        "tokenizer.ggml.model": kind,
        "tokenizer.ggml.tokens": [
            *(f"<|plamo:{name}|>" for name in ("unk", "bos", "eos", "pad")), *BYTE_TOKENS, *words,
            *("<|plamo:chat|>", "[tool]"),
        ],
        "tokenizer.ggml.token_type": [
            *(UNKNOWN, CONTROL, CONTROL, CONTROL), *[BYTE] * 256, *[NORMAL] * len(words),
            *(CONTROL, USER),
        ],
        "tokenizer.ggml.scores": [
            *[0.0] * 260, *(-scores.choice((scores.uniform(0, 10), 3.00005)) for _ in words),
            *(0.0, 0.0),
        ],
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.bos_token_id": 1,
    }  # fmt: skip


def dna(base: Keys) -> Keys:
    bases = [f"{word}\ue000" for word in ("ACGTAC", "AAAAAA", "ACAAAA", "CCCCCC", "TTTTAA")]
    added = dict.fromkeys(["<dna>", "</dna>", "<oov>", *bases], NORMAL)
    return {
        **with_tokens(base, added),
        "tokenizer.ggml.model": "hybriddna",
        "tokenizer.ggml.pre": "qwen2",
    }
