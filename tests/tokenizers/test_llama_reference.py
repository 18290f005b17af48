"""Token ids against llama.cpp itself, for every pre-tokenizer and every tokenizer model."""

from pathlib import Path
from typing import Any

import pytest

from dynemo.models.gguf import read_gguf
from dynemo.tokenizers.gguf.pretokenize import PRE_TOKENIZERS
from support.gguf_files import unpack_vocabulary
from support.llama_reference import differences, texts
from support.llama_vocabularies import (
    CONTROL,
    NORMAL,
    USER,
    Keys,
    dna,
    gemma4,
    plamo,
    rwkv,
    small_bpe,
    t5,
    with_tokens,
)

TEXTS = texts()

# Names of the same pre-tokenizer are tested with fewer texts; the first name gets all texts.
_FIRST_NAMES = {pre: name for name, pre in reversed(PRE_TOKENIZERS.items())}


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Keys]:
    folder = tmp_path_factory.mktemp("vocabularies")
    return {
        name: {
            key: value
            for key, value in read_gguf(unpack_vocabulary(name, folder)).metadata.items()
            if key.startswith("tokenizer.")
        }
        for name in ("gpt-2", "llama-spm", "phi-3", "bert-bge")
    }


# llama.cpp aborts on white space in a word. "whitespace" yields such words with other models.
@pytest.mark.parametrize("name", [name for name in PRE_TOKENIZERS if name != "whitespace"])
def test_pre_tokenizers(name: str, vocabularies: dict[str, Keys], tmp_path: Path) -> None:
    pre = PRE_TOKENIZERS[name]
    keys = small_bpe(vocabularies["gpt-2"]) if pre.is_byte_level else gemma4()
    keys |= {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": name}
    chosen = TEXTS if _FIRST_NAMES[pre] == name else TEXTS[::5]
    assert not differences(keys, tmp_path, chosen)


SPACED = [
    "the world and the  world", "hello  world.   And\n\n\nin the   12345", " lead", "trail ",
    "a. A .▁A", "[tool] x", "<start_of_turn>user\nhi<end_of_turn>", "文字文字 ĳ", "▁▁▁", "e ▁w",
    "lo wo", "the world " * 20,
]  # fmt: skip


@pytest.mark.parametrize("changes", [{}, {"tokenizer.ggml.add_bos_token": False}])
def test_gemma4(changes: Keys, tmp_path: Path) -> None:
    assert not differences(gemma4() | changes, tmp_path, TEXTS + SPACED)


@pytest.mark.parametrize("name", ["roberta-bpe", "gpt-2"])
def test_bpe_with_a_separator(name: str, vocabularies: dict[str, Keys], tmp_path: Path) -> None:
    keys = small_bpe(vocabularies["gpt-2"], 500) | {
        "tokenizer.ggml.pre": name,
        "tokenizer.ggml.add_sep_token": True,
        "tokenizer.ggml.seperator_token_id": 3,
    }
    assert not differences(keys, tmp_path, TEXTS[::5])


@pytest.mark.parametrize("changed", ["", "add_bos_token", "add_sep_token", "add_eos_token"])
def test_wordpiece(changed: str, vocabularies: dict[str, Keys], tmp_path: Path) -> None:
    """WordPiece adds BOS and SEP whatever the file says."""
    keys = vocabularies["bert-bge"]
    if changed:
        keys = keys | {f"tokenizer.ggml.{changed}": changed == "add_eos_token"}
    chosen = TEXTS[::5] if changed else TEXTS + SPACED
    assert not differences(keys, tmp_path, [*chosen, "a\x1cb\x1fc", "a\tb\x0bc\x85d"])


def test_bytes_without_a_token_are_left_out(tmp_path: Path) -> None:
    keys = gemma4()
    tokens: Any = keys["tokenizer.ggml.tokens"]
    keys["tokenizer.ggml.tokens"] = [
        f"[{token}]" if token in ("<0xC3>", "<0x41>") else token for token in tokens
    ]
    assert not differences(keys, tmp_path, TEXTS + SPACED)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"add_space_prefix": False},
        {"add_bos_token": False, "add_eos_token": True},
    ],
    ids=lambda changes: "+".join(changes) or "plain",
)
def test_spm(changes: Keys, vocabularies: dict[str, Keys], tmp_path: Path) -> None:
    named = {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    assert not differences(vocabularies["llama-spm"] | named, tmp_path, TEXTS + SPACED)


def test_spm_with_tokens_across_spaces(vocabularies: dict[str, Keys], tmp_path: Path) -> None:
    keys = dict(vocabularies["llama-spm"])
    tokens: Any = keys["tokenizer.ggml.tokens"]
    keys["tokenizer.ggml.tokens"] = [*tokens[:500], "o▁w", ".▁", "\n▁", *tokens[503:]]
    assert not differences(keys, tmp_path, TEXTS + SPACED)


def test_phi_3_strips_after_special_tokens(vocabularies: dict[str, Keys], tmp_path: Path) -> None:
    keys = {**vocabularies["phi-3"], "general.name": "My Phi-3 mini"}
    special = "<|user|>  \n hi <|end|>\n\n <|assistant|> x </s>  y <s> z <unk> q"
    assert not differences(keys, tmp_path, [*TEXTS[::5], special, " <|end|> <|end|>  "])


@pytest.mark.parametrize("name", ["jina-v2-de", "llama-bpe", "qwen2"])
def test_special_tokens(name: str, vocabularies: dict[str, Keys], tmp_path: Path) -> None:
    added = {
        "ab<": CONTROL, "<b>": USER, "b<b>c": CONTROL, "  ": USER, "<|channel|>": NORMAL,
        "<mask>": CONTROL, "aba": USER, "</s>": NORMAL, "<|im_end|>": NORMAL,
    }  # fmt: skip
    keys = with_tokens(small_bpe(vocabularies["gpt-2"], 500), added)
    keys |= {
        "tokenizer.ggml.pre": name,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": True,
    }
    chosen = [
        "ab<b>c", "ab<b>", "aab<b>cab<", "x  y   z    ", "<|channel|>x <mask> y", "ababababa",
        "aba<mask>  <mask>", "<|endoftext|>ab<", " </s> <|im_end|> \n",
    ]  # fmt: skip
    assert not differences(keys, tmp_path, TEXTS[::5] + chosen)


MARKED = [
    "the  world\u3000and ﬁ Ａ ＡＢ é ①x ｶﾞ a\u200db", "<extra_id_0> the <extra_id_1>the",
    "<ext ñ ñx",
    "\ufeffthe hello", "aaaaaaa the    x", "the\uee00world", "<|plamo:chat|>hello<|plamo:eos|>",
    "<|plamo:abc|>", "<|plamo:a b|>", "<|plamo:|>", "<|plamo:a\x1cb|>", "</s> <s>", "\ufeff",
    "it's \\n \\t", "\uee00",
]  # fmt: skip


@pytest.mark.parametrize("adds_space", [True, False])
@pytest.mark.parametrize("merges_spaces", [True, False])
def test_t5(adds_space: bool, merges_spaces: bool, tmp_path: Path) -> None:
    keys = t5(adds_space=adds_space, merges_spaces=merges_spaces)
    assert not differences(keys, tmp_path, TEXTS + SPACED + MARKED)


def test_rwkv(tmp_path: Path) -> None:
    assert not differences(rwkv(), tmp_path, TEXTS + SPACED + MARKED)


@pytest.mark.parametrize("model", ["plamo2", "plamo3"])
def test_plamo(model: str, tmp_path: Path) -> None:
    assert not differences(plamo(model), tmp_path, TEXTS + SPACED + MARKED)


@pytest.mark.parametrize("lowers", [True, False])
def test_whitespace_words(lowers: bool, tmp_path: Path) -> None:
    keys = gemma4() | {
        "tokenizer.ggml.model": "whitespace",
        "tokenizer.ggml.pre": "whitespace",
        "tokenizer.ggml.normalizer.lowercase": lowers,
    }
    assert not differences(keys, tmp_path, [*TEXTS, *SPACED, "İSTANBUL ǅ ΑΣ"])


def test_dna(vocabularies: dict[str, Keys], tmp_path: Path) -> None:
    chosen = [
        "<dna>ACGTACAC</dna> hi", "x<dna>acgtacCCCCCCTT", "<dna></dna>", "no dna </dna>", "CCCCCC",
        "<dna>é文ACGT</dna>y<dna>AAAAAA", "<dna>TTTT</dna>",
    ]  # fmt: skip
    assert not differences(dna(small_bpe(vocabularies["gpt-2"])), tmp_path, TEXTS[::5] + chosen)
