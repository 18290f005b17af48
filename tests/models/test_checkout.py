"""Checkouts: the content of their small files, in every form that transformers has written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dynemo.errors import ModelError
from dynemo.models.checkout.config import context_length, eos_ids, kv_bytes_per_token
from dynemo.models.checkout.read import read_checkout

FIDELITY = Path(__file__).parent.parent / "fidelity"
USER = {"role": "user", "content": "Hi"}

Write = Callable[..., Path]


@pytest.fixture
def checkout(tmp_path: Path) -> Write:
    """Returns a function that writes a folder with a tokenizer.

    Keywords are its files, `__` is a dot.
    """

    def write(**files: object) -> Path:
        shutil.copy(FIDELITY / "tokenizer_byte_level.json", tmp_path / "tokenizer.json")
        for name, content in files.items():
            file = tmp_path / name.replace("__", ".").replace("_SLASH_", "/")
            file.parent.mkdir(exist_ok=True)
            if isinstance(content, bytes):
                file.write_bytes(content)
            else:
                file.write_text(content if isinstance(content, str) else json.dumps(content))
        return tmp_path

    return write


def test_a_whole_checkout(checkout: Write) -> None:
    folder = checkout(
        config__json={
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "max_position_embeddings": 2048,
            "vocab_size": 4160,
            "eos_token_id": 1,
        },
        generation_config__json={
            "eos_token_id": [3, 1],
            "do_sample": True,
            "temperature": 0.6,
            "top_p": 0.95,
            "top_k": 20,
            "repetition_penalty": 1.05,
            "max_new_tokens": 10,
        },
        tokenizer_config__json={
            "bos_token": "<|begin_of_text|>",
            "eos_token": {"content": "<|eot_id|>"},
            "chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}",
        },
    )
    read = read_checkout(folder)
    assert read.architecture == "LlamaForCausalLM"
    assert read.model_type == "llama"
    assert read.context_length == 2048
    assert read.vocab_size == 4160
    assert read.eos_ids == (3, 1, 4)
    assert read.defaults == {
        "temperature": 0.6,
        "top_p": 0.95,
        "top_k": 20,
        "repetition_penalty": 1.05,
    }
    assert read.template.render([USER]) == "<|begin_of_text|>Hi<|eot_id|>"
    assert read.tokenizer.vocab_size == 4096
    assert read.tokenizer is read.tokenizer


def test_a_tokenizer_and_a_template_are_enough_to_render(checkout: Write) -> None:
    folder = checkout(chat_template__jinja="T")
    read = read_checkout(folder, needs_config=False)
    assert read.template.render([USER]) == "T"
    assert (read.architecture, read.context_length, read.eos_ids, read.defaults) == ("", 0, (), {})
    assert read.vocab_size is None


@pytest.mark.parametrize(
    ("files", "templates"),
    [
        ({}, {}),
        ({"tokenizer_config__json": {"chat_template": "a"}}, {"default": "a"}),
        ({"tokenizer_config__json": {"chat_template": {"default": "a"}}}, {"default": "a"}),
        (
            {
                "tokenizer_config__json": {
                    "chat_template": [
                        {"name": "default", "template": "a"},
                        {"name": "tool_use", "template": "b"},
                    ]
                }
            },
            {"default": "a", "tool_use": "b"},
        ),
        (
            {
                "chat_template__jinja": "file\n",
                "tokenizer_config__json": {"chat_template": "old"},
            },
            {"default": "file\n"},
        ),
        (
            {
                "chat_template__jinja": "file",
                "additional_chat_templates_SLASH_tool_use__jinja": "tools",
            },
            {"default": "file", "tool_use": "tools"},
        ),
        ({"chat_template__json": {"chat_template": "processor"}}, {"default": "processor"}),
        (
            {
                "chat_template__json": {"chat_template": "processor"},
                "tokenizer_config__json": {"chat_template": "tokenizer"},
            },
            {"default": "tokenizer"},
        ),
    ],
)
def test_where_templates_are(
    checkout: Write, files: dict[str, Any], templates: dict[str, str]
) -> None:
    assert read_checkout(checkout(**files), needs_config=False).templates == templates


def test_a_template_keeps_its_bytes(checkout: Write) -> None:
    folder = checkout(chat_template__jinja="{# é #}\r\nx \r\n".encode())
    read = read_checkout(folder, needs_config=False)
    assert read.templates["default"] == "{# é #}\r\nx \r\n"
    assert read.template.render([USER]) == "x "


def test_without_a_template_there_is_no_chat(checkout: Write) -> None:
    read = read_checkout(checkout(), needs_config=False)
    with pytest.raises(ModelError, match="has no chat template"):
        _ = read.template


def test_control_tokens_of_the_older_file(checkout: Write) -> None:
    folder = checkout(
        tokenizer_config__json={"eos_token": "<|end_of_text|>"},
        special_tokens_map__json={"eos_token": {"content": "<|eot_id|>"}},
    )
    read = read_checkout(folder, needs_config=False)
    assert read.special_tokens == {"eos_token": "<|eot_id|>"}
    assert read.eos_ids == (4,)


def test_greedy_is_advised_where_no_sampling_is_wanted(checkout: Write) -> None:
    folder = checkout(generation_config__json={"do_sample": False, "temperature": 0.6})
    assert read_checkout(folder, needs_config=False).defaults == {"temperature": 0.0}


def test_odd_values_of_sampling_are_not_advice(checkout: Write) -> None:
    folder = checkout(generation_config__json={"temperature": None, "top_p": "x", "top_k": True})
    assert read_checkout(folder, needs_config=False).defaults == {}


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({}, 0),
        ({"max_position_embeddings": 4096}, 4096),
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 8192}}, 8192),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 2}}, 8192),
        (
            {
                "max_position_embeddings": 32768,
                "rope_scaling": {
                    "rope_type": "yarn",
                    "factor": 4.0,
                    "original_max_position_embeddings": 32768,
                },
            },
            131072,
        ),
        (
            {
                "max_position_embeddings": 163840,
                "rope_scaling": {
                    "type": "yarn",
                    "factor": 40,
                    "original_max_position_embeddings": 4096,
                },
            },
            163840,
        ),
        (
            {
                "max_position_embeddings": 131072,
                "rope_parameters": {
                    "rope_type": "llama3",
                    "factor": 32.0,
                    "original_max_position_embeddings": 8192,
                },
            },
            131072,
        ),
        (
            {
                "model_type": "gemma3",
                "text_config": {
                    "max_position_embeddings": 131072,
                    "rope_scaling": {"rope_type": "linear", "factor": 8.0},
                },
            },
            131072,
        ),
        (
            {
                "max_position_embeddings": 2048,
                "rope_parameters": {"full_attention": {"rope_type": "dynamic", "factor": 2.0}},
            },
            4096,
        ),
        ({"max_position_embeddings": -1}, 0),
        ({"max_position_embeddings": True}, 0),
    ],
)
def test_context_length(config: dict[str, Any], length: int) -> None:
    assert context_length(config) == length


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ({}, 0),
        ({"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64}, 512),
        (
            {
                "text_config": {
                    "num_hidden_layers": 2,
                    "num_attention_heads": 4,
                    "num_key_value_heads": 1,
                    "head_dim": 32,
                }
            },
            256,
        ),
        (
            {
                "num_hidden_layers": 3,
                "num_attention_heads": 128,
                "kv_lora_rank": 512,
                "qk_rope_head_dim": 64,
            },
            3456,
        ),
    ],
)
def test_kv_bytes(config: dict[str, Any], size: int) -> None:
    assert kv_bytes_per_token(config) == size


def test_eos_ids_of_all_files() -> None:
    generation = {"eos_token_id": [5, 7]}
    config = {"eos_token_id": None, "text_config": {"eos_token_id": [7, 9, -1, True, "x"]}}
    assert eos_ids(generation, config, {}) == [5, 7, 9]


def test_a_folder_without_a_checkout(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a folder"):
        read_checkout(tmp_path / "nothing")
    with pytest.raises(ModelError, match=r"has no config\.json"):
        read_checkout(tmp_path)
    with pytest.raises(ModelError, match=r"has no tokenizer\.json\. Download"):
        read_checkout(tmp_path, needs_config=False)


def test_a_tokenizer_of_another_format_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.model").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"only tokenizer\.model\. .*save_pretrained"):
        read_checkout(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{\n "a": 1,\n}', r'config\.json" is not valid JSON: .* \(line 3, column 1\)'),
        ("", "is an empty file"),
        ("version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("[1]", "must hold a JSON object"),
        (b"\xff{}", "not UTF-8"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_broken_json_names_the_file(checkout: Write, content: str | bytes, message: str) -> None:
    folder = checkout(config__json=content)
    with pytest.raises(ModelError, match=message):
        read_checkout(folder)


def test_a_broken_list_of_templates(checkout: Write) -> None:
    folder = checkout(tokenizer_config__json={"chat_template": [{"name": "default"}]})
    with pytest.raises(ModelError, match=r'"chat_template" in .* must be'):
        read_checkout(folder, needs_config=False)


def test_missing_shards_are_named(checkout: Write) -> None:
    shards = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    index = {"weight_map": {f"layer.{n}": shard for n, shard in enumerate(shards)}}
    folder = checkout(config__json={}, model__safetensors__index__json=index)
    (folder / shards[0]).write_bytes(b"")
    with pytest.raises(
        ModelError, match=r"lacks model-00002-of-00003\.safetensors and 1 more of the 3"
    ):
        read_checkout(folder)
    for shard in shards:
        (folder / shard).write_bytes(b"\x02" + bytes(7) + b"{}")
    assert read_checkout(folder).config == {}
