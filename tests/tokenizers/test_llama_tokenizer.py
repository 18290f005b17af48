"""GGUF tokenizers: what they refuse, what ends a generation, and linear time."""

import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynemo.errors import ModelError, RequestError
from dynemo.tokenizers.gguf.bpe import BYTE_ALPHABET
from dynemo.tokenizers.gguf.pretokenize import PRE_TOKENIZERS
from dynemo.tokenizers.gguf.split import splitter
from dynemo.tokenizers.gguf.tokenizer import LlamaTokenizer, load_tokenizer
from support.llama_vocabularies import BYTE, CONTROL, NORMAL, USER, Keys, gemma4, rwkv


def _bpe(*added: str, merges: list[str] | None = None, **changes: object) -> Keys:
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [*BYTE_ALPHABET, *added],
        "tokenizer.ggml.token_type": [NORMAL] * (256 + len(added)),
        "tokenizer.ggml.merges": merges or [],
        **{f"tokenizer.ggml.{key}": value for key, value in changes.items()},
    }


def _spm(*added: str, types: Mapping[str, int] | None = None, **changes: object) -> Keys:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *added]
    token_types = {"<unk>": 2, "<s>": CONTROL, "</s>": CONTROL, **(types or {})}
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(i) for i in range(len(added))],
        "tokenizer.ggml.token_type": [
            token_types.get(text, BYTE if text.startswith("<0x") else NORMAL) for text in tokens
        ],
        **{f"tokenizer.ggml.{key}": value for key, value in changes.items()},
    }


def _refusal(keys: Mapping[str, object]) -> str:
    with pytest.raises(ModelError) as caught:
        load_tokenizer(keys)
    return str(caught.value)


@pytest.mark.parametrize("model", ["no_vocab", "none", "made-up"])
def test_other_tokenizer_models_are_refused_by_name(model: str) -> None:
    refusal = _refusal({**_bpe(), "tokenizer.ggml.model": model})
    assert f'"{model}"' in refusal
    assert "It supports llama (SPM), gpt2 (BPE)" in refusal


def test_unknown_pre_tokenizers_are_refused_by_name() -> None:
    assert 'the pre-tokenizer "made-up"' in _refusal(_bpe(pre="made-up"))


@pytest.mark.parametrize("key", ["model", "tokens", "merges"])
def test_missing_keys_are_refused(key: str) -> None:
    keys = _bpe()
    del keys[f"tokenizer.ggml.{key}"]
    assert f"tokenizer.ggml.{key}" in _refusal(keys)


def test_broken_vocabularies_are_refused() -> None:
    assert 'the token "a" twice' in _refusal(_bpe("a"))
    assert "2 values for 256 tokens" in _refusal(_bpe(token_type=[1, 1]))
    assert "is not a list of numbers" in _refusal(_bpe(scores="x"))
    assert "add a BOS token, but does not name one" in _refusal(
        {**gemma4(), "tokenizer.ggml.bos_token_id": 1 << 31}
    )


def test_the_ids_that_end_a_generation() -> None:
    keys = _bpe("<|im_end|>", "<|eom_id|>", "</s>", "<|file_sep|>", "<|im_start|>", eos_token_id=5)
    special = load_tokenizer(keys).special
    assert (special.eos, special.eot, special.eom) == (5, 256, 257)
    assert special.eog == {5, 256, 257, 258, 259}


def test_end_is_no_end_among_the_tokens_of_gpt_oss() -> None:
    tokenizer = load_tokenizer(_bpe("<|end|>", "<|return|>", "<|call|>", "<|channel|>"))
    assert tokenizer.special.eog == {11, 257, 258}
    assert tokenizer.decode([256, 257, 259]) == "<|end|><|channel|>"


def test_s_is_no_end_among_the_tokens_of_gemma_4() -> None:
    tokenizer = load_tokenizer(_bpe("</s>", "<|tool_response>"))
    assert tokenizer.special.eog == {11, 257}


def test_ids_out_of_range_are_as_if_they_were_not_there() -> None:
    special = load_tokenizer(_spm(eos_token_id=9999, bos_token_id=-1)).special
    assert (special.bos, special.eos) == (1, 2)


def test_lone_surrogates_are_refused() -> None:
    with pytest.raises(RequestError, match=r"U\+D800"):
        load_tokenizer(_bpe()).encode("a\ud800b", add_special=False, parse_special=False)


def test_ids_outside_the_vocabulary_are_refused() -> None:
    tokenizer = load_tokenizer(_bpe())
    for token_id in (-1, 256):
        with pytest.raises(RequestError, match="out of range"):
            tokenizer.decode([token_id])


def test_control_tokens_have_no_text() -> None:
    tokenizer = load_tokenizer(_spm("▁a", "<|x|>", types={"<|x|>": USER}))
    ids = tokenizer.encode("a<|x|>", add_special=True, parse_special=True)
    assert ids == [1, 259, 260]
    assert tokenizer.decode([*ids, 2, 0]) == " a<|x|>"
    assert tokenizer.token_bytes(2) == b""


def test_characters_without_a_token_are_bytes() -> None:
    tokenizer = load_tokenizer(_spm("▁", add_space_prefix=False))
    ids = tokenizer.encode("é x", add_special=False, parse_special=False)
    assert ids == [3 + 0xC3, 3 + 0xA9, 259, 3 + ord("x")]
    stream = tokenizer.detokenizer()
    assert [stream.feed([token_id]) for token_id in ids] == ["", "é", " ", "x"]
    assert stream.flush() == ""


def test_a_torn_character_is_shown_at_the_end() -> None:
    stream = load_tokenizer(_spm()).detokenizer()
    assert stream.feed([3 + 0xF0, 3 + 0x9F]) == ""
    assert stream.flush() == "\ufffd"


def test_an_empty_token_has_a_name() -> None:
    tokenizer = load_tokenizer(_bpe(""))
    assert tokenizer.token_text(256) == "[EMPTY_256]"


def test_a_token_outside_the_byte_alphabet_is_shown_as_llama_cpp_does() -> None:
    assert load_tokenizer(_bpe("a文")).decode([256]) == "a[UNK_BYTE_0xe69687a文]"


def test_rwkv_pieces_are_bytes() -> None:
    tokenizer = load_tokenizer(rwkv())
    text = "文\n\n\\n é"
    ids = tokenizer.encode(text, add_special=True, parse_special=True)
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
@given(text=st.text(max_size=40))
def test_words_joined_are_the_text(name: str, text: str) -> None:
    assert "".join(splitter(PRE_TOKENIZERS[name].patterns).split(text)) == text


def _kinds() -> dict[str, LlamaTokenizer]:
    doubled = ["a a", "aa aa", "aaaa aaaa", "Ġ Ġ", "ĠĠ ĠĠ"]
    joined: Any = [line.replace(" ", "") for line in doubled]
    tokens = [text.replace("Ġ", "▁") for text in joined]
    bpe = {
        name: load_tokenizer(_bpe(*joined, merges=doubled, pre=name))
        for name in ("gpt-2", "llama-bpe", "gpt-4o", "deepseek-v3", "superbpe", "exaone-moe")
    }
    gemma = load_tokenizer(gemma4())
    return {"spm": load_tokenizer(_spm(*tokens, "▁", "a")), "gemma4": gemma, **bpe}


@pytest.mark.parametrize("unit", ["a", " ", "A", "é", "文", "1", "<", "\n", "a ", "\u0301", "!\n"])
def test_long_texts_take_linear_time(unit: str) -> None:
    text = unit * 50_000
    for name, tokenizer in _kinds().items():
        start = time.perf_counter()
        ids = tokenizer.encode(text, add_special=False, parse_special=True)
        # Quadratic code would need minutes.
        assert time.perf_counter() - start < 5, name
        if name != "gemma4":
            assert tokenizer.decode(ids).lstrip(" ") == text.lstrip(" ")
