"""Tokenizers from `tokenizer.json`."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dynemo.errors import ModelError
from dynemo.tokenizers.hf.settings import named_tokens
from dynemo.tokenizers.hf.tokenizer import HfTokenizer
from support.fidelity_data import FOLDER

LLAMA_3 = FOLDER / "tokenizer_byte_level.json"
SENTENCEPIECE = FOLDER / "tokenizer_metaspace.json"


@pytest.fixture(scope="module")
def model() -> HfTokenizer:
    return HfTokenizer(LLAMA_3)


def changed(tmp_path: Path, source: Path, **fields: Any) -> Path:
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(source.read_bytes()), **fields}))
    return file


def test_control_tokens_are_parsed_on_demand(model: HfTokenizer) -> None:
    text = "<|eot_id|>a"
    parsed = model.encode(text, add_special=False, parse_special=True)
    literal = model.encode(text, add_special=False, parse_special=False)
    assert parsed == [4, *model.encode("a", add_special=False, parse_special=True)]
    assert 4 not in literal
    assert model.decode(literal) == text
    assert model.decode(parsed) == "a"


def test_other_added_tokens_stay_tokens_in_literal_text() -> None:
    model = HfTokenizer(SENTENCEPIECE)
    call = model.token_id("<tool_call>")
    ids = model.encode("<tool_call><|im_end|>", add_special=False, parse_special=False)
    assert call in ids
    assert model.token_id("<|im_end|>") not in ids
    assert model.decode([call or 0]) == "<tool_call>"


def test_bos_is_added_as_the_file_says(tmp_path: Path) -> None:
    bos = {"id": "<|begin_of_text|>", "ids": [0], "tokens": ["<|begin_of_text|>"]}
    processor = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|begin_of_text|>": bos},
    }
    file = changed(tmp_path, LLAMA_3, post_processor=processor)
    model = HfTokenizer(file, {"add_bos_token": False})
    plain = model.encode("Hi", add_special=False, parse_special=True)
    assert model.encode("Hi", add_special=True, parse_special=True) == [0, *plain]
    assert model.encode("Hi", add_special=True, parse_special=False) == [0, *plain]


def test_truncation_and_padding_of_training_are_off(tmp_path: Path) -> None:
    truncation = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    padding = {
        "strategy": {"Fixed": 16},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<|begin_of_text|>",
    }
    model = HfTokenizer(changed(tmp_path, LLAMA_3, truncation=truncation, padding=padding))
    for text in ("a", "one two three four five six seven"):
        ids = model.encode(text, add_special=True, parse_special=True)
        assert model.decode(ids) == text
        assert 0 not in ids


def test_spellings(model: HfTokenizer) -> None:
    assert model.token_id("<|eot_id|>") == 4
    assert model.token_text(4) == "<|eot_id|>"
    assert model.token_id("no such token") is None
    assert model.token_text(model.vocab_size) is None
    assert model.token_text(-1) is None
    assert model.vocab_size == 4096


def test_the_vocabulary_may_have_holes(tmp_path: Path) -> None:
    vocab = {"a": 0, "b": 7}
    file = tmp_path / "tokenizer.json"
    blank = dict.fromkeys(("normalizer", "pre_tokenizer", "post_processor", "decoder"))
    model = {"type": "WordLevel", "vocab": vocab, "unk_token": "a"}
    file.write_text(json.dumps({"version": "1.0", "added_tokens": [], **blank, "model": model}))
    assert HfTokenizer(file).vocab_size == 8


def test_tokens_that_only_the_settings_list() -> None:
    token = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    settings = {
        "added_tokens_decoder": {
            "4096": {"content": "<|extra|>", "special": False, **token},
            "4": {"content": "<|eot_id|>", "special": True, **token, "rstrip": True},
        },
        "eos_token": "<|eot_id|>",
        "pad_token": {"content": "<|pad|>", "__type": "AddedToken"},
        "additional_special_tokens": ["<|more|>"],
        "extra_special_tokens": {"image_token": "<image>"},
    }
    model = HfTokenizer(LLAMA_3, settings)
    texts = ["<|extra|>", "<|pad|>", "<image>"]
    assert [model.token_id(text) for text in texts] == [4096, 4097, 4098]
    assert model.vocab_size == 4099
    assert model.decode([4096, 4097, 4098]) == "<|extra|>"
    ids = model.encode("<|eot_id|>  a", add_special=False, parse_special=True)
    assert model.decode(ids) == "a"


def test_named_tokens() -> None:
    settings = {
        "bos_token": None,
        "eos_token": {"content": "</s>", "lstrip": False},
        "unk_token": "<unk>",
        "add_bos_token": True,
        "tokenizer_class": "X",
        "extra_special_tokens": {"image_token": "<image>"},
    }
    assert named_tokens(settings) == {
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "image_token": "<image>",
    }


def test_threads_do_not_disturb_each_other() -> None:
    model = HfTokenizer(LLAMA_3)
    expected = {
        parse: model.encode("<|eot_id|>", add_special=False, parse_special=parse)
        for parse in (True, False)
    }
    with ThreadPoolExecutor(8) as pool:
        calls = [
            (p, pool.submit(model.encode, "<|eot_id|>", add_special=False, parse_special=p))
            for p in [False, True] * 200
        ]
    assert all(call.result() == expected[parse] for parse, call in calls)


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b"\xff\xfe", b'{"model": 3}'])
def test_a_broken_file_fails_at_start(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_bytes(content)
    with pytest.raises(ModelError, match="as a tokenizer"):
        HfTokenizer(file)


@pytest.mark.parametrize(
    "listed", [{"x": {}}, {"4": {"content": 3}}, {"4": {"odd": "x"}}, {"4": 1}]
)
def test_broken_settings_fail_at_start(tmp_path: Path, listed: dict[str, Any]) -> None:
    shutil.copy(LLAMA_3, tmp_path / "tokenizer.json")
    with pytest.raises(ModelError, match="added_tokens_decoder"):
        HfTokenizer(tmp_path / "tokenizer.json", {"added_tokens_decoder": listed})
