"""Cards as bytes: unpacking returns the packed card."""

import json
import random
import zlib
from pathlib import Path
from typing import Any

import pytest
from msgspec import msgpack

from dynemo.errors import ModelError
from dynemo.messages.ask import Ask
from dynemo.models.find import Found
from dynemo.models.gguf import read_gguf
from dynemo.models.load import read_model
from dynemo.prompt.card.card import Card
from dynemo.prompt.card.wire import MAX_CARD, pack_card, unpack_card
from dynemo.prompt.template import ChatTemplate
from dynemo.tokenizers.gguf.bpe import BYTE_ALPHABET
from dynemo.tokenizers.gguf.tokenizer import load_tokenizer
from dynemo.tokenizers.hf.tokenizer import HfTokenizer
from support.fidelity_data import FOLDER, template
from support.gguf_files import VOCABULARIES, unpack_vocabulary, vocabulary_goldens

CHATS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "Hello, Grüße, 日本 <|eot_id|>"}],
    [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "  And\n\n3.14 * 1000? "},
    ],
]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


def card_of(found: Found) -> Card:
    return read_model(found, "demo", None).card()


def check_alike(card: Card, back: Card, texts: list[str]) -> None:
    assert back.template.sources == card.template.sources
    assert back.template.special_tokens == card.template.special_tokens
    for field in ("name", "architecture", "eos_ids", "context_length", "kv_bytes_per_token"):
        assert getattr(back, field) == getattr(card, field)
    assert back.defaults == card.defaults
    assert back.format == card.format
    assert back.marks == card.marks
    assert back.tokenizer.vocab_size == card.tokenizer.vocab_size
    for text in texts:
        for special in (False, True):
            options = {"add_special": special, "parse_special": special}
            ids = card.tokenizer.encode(text, **options)
            assert back.tokenizer.encode(text, **options) == ids
            assert back.tokenizer.decode(ids) == card.tokenizer.decode(ids)
    # Equal cards have equal bytes, because they are stored under their hash.
    assert pack_card(back) == pack_card(card)


@pytest.mark.parametrize("form", ["gguf", "checkout"])
def test_the_demo_model(form: str, demo: Path, demo_folder: Path) -> None:
    found = (
        Found("gguf", demo, "demo") if form == "gguf" else Found("checkout", demo_folder, "demo")
    )
    card = card_of(found)
    back = unpack_card(pack_card(card))
    texts = []
    for chat in CHATS:
        for tools in (None, TOOLS):
            text = card.template.render(chat, tools=tools)
            assert back.template.render(chat, tools=tools) == text
            texts.append(text)
    check_alike(card, back, texts)
    assert card.eos_ids


@pytest.mark.parametrize("name", VOCABULARIES)
def test_every_vocabulary_of_a_gguf(name: str, tmp_path: Path) -> None:
    # Some of these hold tokens that are not UTF-8.
    tokenizer = load_tokenizer(read_gguf(unpack_vocabulary(name, tmp_path)).metadata)
    card = Card("x", "llama", tokenizer, ChatTemplate("{{ messages }}"), (2,), 4096, 7)
    texts = [json.loads(line)["text"] for line in vocabulary_goldens(name).splitlines()[:200]]
    check_alike(card, unpack_card(pack_card(card)), texts)


@pytest.mark.parametrize("file", ["tokenizer_byte_level.json", "tokenizer_metaspace.json"])
def test_a_tokenizer_json_and_its_settings(file: str) -> None:
    settings = {
        "added_tokens_decoder": {"9000": {"content": "<extra>", "special": True}},
        "eos_token": {"content": "<|eot_id|>", "lstrip": False},
        "additional_special_tokens": ["<|more|>"],
        "chat_template": "x" * 100_000,
    }
    tokenizer = HfTokenizer(FOLDER / file, settings)
    sources = {"default": "{{ eos_token }}", "tool_use": "{{ tools }}", "rag": "r"}
    card = Card(
        "x",
        "llama",
        tokenizer,
        ChatTemplate(sources, special_tokens={"eos_token": "</s>"}),
        (4, 5),
        defaults=Ask(temperature=0.5, top_k=3),
    )
    back = unpack_card(pack_card(card))
    check_alike(card, back, ["a <extra> b<|more|><|eot_id|> c", " Grüße \n\n 日本 😀"])
    assert back.tokenizer.token_id("<extra>") == tokenizer.token_id("<extra>") is not None
    assert back.template.name_for(TOOLS) == "tool_use"
    source = back.tokenizer.source()
    assert "chat_template" not in msgpack.decode(msgpack.encode(source))["settings"]


def test_real_templates() -> None:
    tokenizer = HfTokenizer(FOLDER / "tokenizer_byte_level.json")
    for name in ("Qwen-Qwen3-0.6B", "meta-llama-Llama-3.1-8B-Instruct", "Kimi-K2-Thinking"):
        card = Card("x", "llama", tokenizer, template(name), ())
        back = unpack_card(pack_card(card))
        assert back.template.sources == card.template.sources
        assert back.template.special_tokens == card.template.special_tokens


def large_tokenizer() -> bytes:
    """Returns a `tokenizer.json` of 20 MB with 128,000 tokens, as large models have."""
    listed = list(BYTE_ALPHABET)
    merges = []
    for number in range(256, 128_000):
        halves = [listed[number // 2], listed[number % 256]]
        listed.append("".join(halves))
        merges.append(halves)
    file = json.loads((FOLDER / "tokenizer_byte_level.json").read_bytes())
    file["model"].update(vocab={text: i for i, text in enumerate(listed)}, merges=merges)
    file["added_tokens"] = []
    return json.dumps(file, indent=8, ensure_ascii=False).encode()


def test_a_tokenizer_of_20_mb() -> None:
    file = large_tokenizer()
    assert len(file) > 20_000_000
    card = Card("large", "llama", HfTokenizer(file), ChatTemplate("x"), (1,))
    data = pack_card(card)
    assert len(data) < 8_000_000
    back = unpack_card(data)
    assert back.tokenizer.vocab_size == 128_000
    source = back.tokenizer.source()
    assert source == card.tokenizer.source()


@pytest.fixture(scope="module")
def packed() -> bytes:
    tokenizer = HfTokenizer(FOLDER / "tokenizer_byte_level.json")
    return pack_card(Card("x", "llama", tokenizer, ChatTemplate("x"), ()))


def test_another_version(packed: bytes) -> None:
    with pytest.raises(ModelError, match=r"version 9, .* versions up to 1\. Upgrade this"):
        unpack_card(packed[:7] + b"\x09" + packed[8:])


def _changed(packed: bytes, change: dict[str, Any]) -> bytes:
    body = msgpack.decode(zlib.decompress(packed[8:]))
    return packed[:8] + zlib.compress(msgpack.encode({**body, **change}))


def test_fields_of_a_later_release_are_skipped(packed: bytes) -> None:
    body = msgpack.decode(zlib.decompress(packed[8:]))
    change = {
        "modalities": ["image"],
        "tokenizer": {**body["tokenizer"], "sha": "0"},
        "defaults": {"temperature": 0.5, "reasoning_effort": "high"},
    }
    card, expected = unpack_card(_changed(packed, change)), unpack_card(packed)
    assert card.tokenizer.source() == expected.tokenizer.source()
    assert card.name == expected.name
    assert card.defaults.temperature == 0.5


def test_a_tokenizer_of_a_later_release_asks_for_an_upgrade(packed: bytes) -> None:
    change = {"tokenizer": {"type": "tiktoken", "file": b""}}
    with pytest.raises(ModelError, match=r"does not know: .*tiktoken.*Upgrade this"):
        unpack_card(_changed(packed, change))


def test_invalid_bytes_are_refused(packed: bytes) -> None:
    for data in (b"", b"DYNCARD", b"{}", packed[1:], b"DYNCARD\x01", b"DYNCARD\x01garbage"):
        with pytest.raises(ModelError, match="cannot be read"):
            unpack_card(data)


def test_a_damaged_card(packed: bytes) -> None:
    rng = random.Random(2)
    with pytest.raises(ModelError, match="it is truncated"):
        unpack_card(packed[:-10])
    with pytest.raises(ModelError, match="extra data follows its end"):
        unpack_card(packed + b"x")
    for _ in range(100):
        at = rng.randrange(8, len(packed))
        with pytest.raises(ModelError):
            unpack_card(
                packed[:at] + bytes([packed[at] ^ 1 << rng.randrange(8)]) + packed[at + 1 :]
            )


def test_a_card_that_is_too_large() -> None:
    bomb = zlib.compress(bytes(MAX_CARD + 1), 1)
    with pytest.raises(ModelError, match="more than 67,108,864 bytes"):
        unpack_card(b"DYNCARD\x01" + bomb)
    tokenizer = HfTokenizer(FOLDER / "tokenizer_byte_level.json")
    card = Card("x", "a" * (MAX_CARD + 1), tokenizer, ChatTemplate("x"), ())
    with pytest.raises(ModelError, match="can be shared with other processes"):
        pack_card(card)


@pytest.mark.parametrize(
    "change",
    [
        {"tokenizer": {"type": "other"}},
        {"tokenizer": {"type": "gguf", "metadata": {}}},
        {"tokenizer": {"type": "gguf", "metadata": {"tokenizer.ggml.model": "gpt2"}}},
        {
            "tokenizer": {
                "type": "gguf",
                "metadata": {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a", 1, []]},
            }
        },
        {"tokenizer": {"type": "hf", "file": b"{}", "settings": {}}},
        {"templates": {}},
        {"templates": {"default": "{% if %}"}},
        {"eos_ids": ["x"]},
        {"name": 3},
    ],
)
def test_a_card_of_the_wrong_shape(packed: bytes, change: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        unpack_card(_changed(packed, change))


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_bytes((FOLDER / "tokenizer_byte_level.json").read_bytes())
    card = Card("x", "llama", HfTokenizer(file), ChatTemplate("x"), ())
    file.unlink()
    with pytest.raises(ModelError, match=r'tokenizer\.json" cannot be read: No such file'):
        pack_card(card)


def test_text_that_is_not_unicode() -> None:
    tokenizer = HfTokenizer(FOLDER / "tokenizer_byte_level.json")
    card = Card("x", "llama", tokenizer, ChatTemplate("\ud800"), ())
    with pytest.raises(ModelError, match="cannot be shared with other processes"):
        pack_card(card)
