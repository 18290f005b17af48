"""Equal and different cards, and the description of a difference."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import msgpack

from dynemo.models.find import Found
from dynemo.models.gguf import read_gguf
from dynemo.models.load import read_model
from dynemo.prompt.card.card import Card
from dynemo.prompt.card.identity import CardIdentity, difference, identify
from dynemo.prompt.card.wire import pack_card, unpack_card
from dynemo.prompt.template import ChatTemplate
from dynemo.tokenizers.gguf.tokenizer import load_tokenizer
from dynemo.tokenizers.hf.tokenizer import HfTokenizer
from support.fidelity_data import FOLDER
from support.gguf_files import unpack_vocabulary
from support.hf_twins import twin

Metadata = dict[str, Any]
TEMPLATE = ChatTemplate("{{ bos_token }}{{ messages }}", special_tokens={"bos_token": "<s>"})
OTHER = ChatTemplate("other {{ bos_token }}", special_tokens={"bos_token": "<s>"})


def card_of(metadata: Metadata, **changes: Any) -> Card:
    tokenizer = load_tokenizer(metadata)
    card = Card("x", "llama", tokenizer, TEMPLATE, tuple(tokenizer.special.eog))
    return replace(card, **changes)


def twin_of(metadata: Metadata, split: str, **changes: Any) -> Card:
    eos: int = metadata["tokenizer.ggml.eos_token_id"]
    card = Card("x", "LlamaForCausalLM", HfTokenizer(twin(metadata, split)), TEMPLATE, (eos,))
    return replace(card, **changes)


@pytest.fixture(scope="module")
def metadata(demo: Path) -> Metadata:
    return dict(read_gguf(demo).metadata)


def test_the_demo_models_forms_are_one_model(demo: Path, demo_folder: Path) -> None:
    gguf = read_model(Found("gguf", demo, "demo"), "demo", None).card()
    checkout = read_model(Found("checkout", demo_folder, "demo"), "demo", None).card()
    assert difference(identify(gguf), identify(checkout)) == ""
    assert identify(gguf).whole == identify(checkout).whole
    assert identify(unpack_card(pack_card(gguf))).whole == identify(gguf).whole
    assert identify(unpack_card(pack_card(checkout))).whole == identify(gguf).whole
    assert len(identify(gguf).whole) == 64
    assert identify(replace(gguf, name="other")).whole != identify(gguf).whole


def test_a_format_that_the_user_has_named(demo: Path) -> None:
    found = Found("gguf", demo, "demo")
    plain, named = (read_model(found, "demo", None, (tools, "")).card() for tools in ("", "llama4"))
    assert named.format.tools is not None
    assert named.format.tools.name == "llama4"
    assert difference(identify(plain), identify(named)) == "the chat template differs"
    assert unpack_card(pack_card(named)).format == named.format


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("llama-spm", "spm"),
        ("phi-3", "spm"),
        ("gpt-2", "gpt-2"),
        ("falcon", "falcon"),
        ("starcoder", "starcoder"),
        ("mpt", "mpt"),
    ],
)
def test_a_gguf_and_the_tokenizer_json_of_its_model(name: str, split: str, tmp_path: Path) -> None:
    metadata: Metadata = dict(read_gguf(unpack_vocabulary(name, tmp_path)).metadata)
    mine, theirs = identify(card_of(metadata)), identify(twin_of(metadata, split))
    assert difference(mine, theirs) == ""
    assert mine == theirs


def test_padding_of_one_form(metadata: Metadata) -> None:
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    padding = [f"[PAD{i}]" for i in range(len(tokens), len(tokens) + 64)]
    padded = {
        **metadata,
        "tokenizer.ggml.tokens": [*tokens, *padding],
        "tokenizer.ggml.token_type": [*metadata["tokenizer.ggml.token_type"], *[5] * 64],
    }
    assert identify(card_of(padded)).whole == identify(card_of(metadata)).whole
    assert identify(twin_of(metadata, "llama-bpe")).whole == identify(card_of(metadata)).whole
    file = twin(metadata, "llama-bpe")
    added = replace(
        twin_of(metadata, "llama-bpe"), tokenizer=HfTokenizer(file, {"pad_token": "<pad>"})
    )
    assert identify(added).whole == identify(card_of(metadata)).whole


def test_ends_that_only_one_form_names(metadata: Metadata) -> None:
    # A checkout may name only one EOS id; llama.cpp finds the others by their spelling.
    one = twin_of(metadata, "llama-bpe")
    assert set(one.eos_ids) < set(card_of(metadata).eos_ids)
    assert identify(one).eos == identify(card_of(metadata)).eos


def test_templates_that_jinja_reads_alike(metadata: Metadata) -> None:
    def of(*sources: str, **special: str) -> str:
        named = dict(zip(("default", "rag"), sources, strict=False))
        template = ChatTemplate(named, special_tokens=special)
        return identify(card_of(metadata, template=template)).whole

    plain = of("a\nb", unk_token="<unk>")
    assert of("a\r\nb\n", pad_token="<pad>") == plain
    assert of("a\nb", "never chosen") == plain
    assert of("a\nb\n\n") != plain
    assert of("{{eos_token}}", eos_token="a") != of("{{eos_token}}", eos_token="b")


CHANGES: list[tuple[str, Callable[[Metadata], Any]]] = [
    ("the name differs", lambda m: card_of(m, name="other")),
    ("the EOS ids differ", lambda m: card_of(m, eos_ids=(5,))),
    ("the chat template differs", lambda m: card_of(m, template=OTHER)),
    (
        "the chat template and the EOS ids differ",
        lambda m: card_of(m, eos_ids=(5,), template=OTHER),
    ),
    (
        "the name, the chat template and the EOS ids differ",
        lambda m: card_of(m, name="y", eos_ids=(5,), template=OTHER),
    ),
    (
        "the pre-tokenization differs",
        lambda m: card_of({**m, "tokenizer.ggml.pre": "gpt-2"}),
    ),
    (
        "the merges differ",
        lambda m: card_of(
            {**m, "tokenizer.ggml.merges": list(reversed(m["tokenizer.ggml.merges"]))}
        ),
    ),
    (
        "the vocabulary differs",
        lambda m: card_of({**m, "tokenizer.ggml.tokens": ["§§", *m["tokenizer.ggml.tokens"][1:]]}),
    ),
    (
        "the special tokens differ",
        lambda m: card_of(
            {
                **m,
                "tokenizer.ggml.token_type": [
                    1 if text == "<|start_header_id|>" else kind
                    for text, kind in zip(
                        m["tokenizer.ggml.tokens"], m["tokenizer.ggml.token_type"], strict=True
                    )
                ],
            }
        ),
    ),
]


@pytest.mark.parametrize(("message", "change"), CHANGES, ids=[message for message, _ in CHANGES])
def test_differences_are_named(
    message: str, change: Callable[[Metadata], Card], metadata: Metadata
) -> None:
    mine, theirs = identify(card_of(metadata)), identify(change(metadata))
    assert difference(mine, theirs) == message
    assert mine.whole != theirs.whole


def test_the_probe_detects_other_scores(tmp_path: Path) -> None:
    metadata: Metadata = dict(read_gguf(unpack_vocabulary("llama-spm", tmp_path)).metadata)
    scores: list[float] = metadata["tokenizer.ggml.scores"]
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    # Two tokens that many words contain are swapped: the vocabulary stays the same.
    first, second = tokens.index("er"), tokens.index("ing")
    scores = list(scores)
    scores[first], scores[second] = scores[second], scores[first]
    changed = card_of({**metadata, "tokenizer.ggml.scores": scores})
    assert difference(identify(card_of(metadata)), identify(changed)) == (
        "the pre-tokenization differs"
    )


def test_sentencepiece_as_metaspace() -> None:
    tokenizer = HfTokenizer(FOLDER / "tokenizer_metaspace.json")
    card = Card("x", "llama", tokenizer, TEMPLATE, (2,))
    assert identify(card).whole == identify(unpack_card(pack_card(card))).whole


def test_it_travels(metadata: Metadata) -> None:
    identity = identify(card_of(metadata))
    data = msgpack.encode(identity)
    assert len(data) < 400
    assert msgpack.decode(data, type=CardIdentity) == identity
    assert difference(identity, identity) == ""
