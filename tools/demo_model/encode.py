"""Encodes chats to token ids: the template, the tokenizer, and which tokens are learned."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

import jinja2
from chats import Chat, filler, make_chat
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tasks import MARK

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    processors,
    trainers,
)

TEMPLATE_FILE = Path(__file__).parent / "chat_template.jinja"
BEGIN, END, HEADER, HEADER_END, TURN_END = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)
SPECIAL = (BEGIN, END, HEADER, HEADER_END, TURN_END, MARK)
SPECIAL_SPLIT = re.compile("|".join(map(re.escape, SPECIAL)))
LLAMA_3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def new_tokenizer() -> Tokenizer:
    """Returns a byte-level BPE tokenizer that splits like Llama 3 (llama.cpp's name: llama-bpe)."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_3_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def train_tokenizer(size: int, seed: int) -> Tokenizer:
    rng = Random(seed)
    render = Renderer()
    chats = [make_chat(rng) for _ in range(6000)] + [filler(rng) for _ in range(1500)]
    texts = [piece for chat in chats for piece in SPECIAL_SPLIT.split(render(chat)) if piece]
    tokenizer = new_tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL]
    )
    begin = tokenizer.token_to_id(BEGIN)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A {BEGIN}:1 $B:1", special_tokens=[(BEGIN, begin)]
    )
    return tokenizer


class Renderer:
    """Renders the chat template in transformers' environment."""

    def __init__(self) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
        environment.undefined = jinja2.Undefined
        self.template = environment.from_string(TEMPLATE_FILE.read_text(encoding="utf-8"))

    def __call__(self, chat: Chat, prompt_only: bool = False) -> str:
        if chat.text:
            return BEGIN + chat.text + END
        return self.template.render(
            messages=chat.messages,
            tools=chat.tools,
            bos_token=BEGIN,
            add_generation_prompt=prompt_only,
        )


def id_of(tokenizer: Tokenizer, token: str) -> int:
    number: int | None = tokenizer.token_to_id(token)
    if number is None:
        raise ValueError(f"the tokenizer has no token {token!r}")
    return number


class Encoder:
    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.render = Renderer()
        self.turn_end = id_of(tokenizer, TURN_END)
        self.mark = id_of(tokenizer, MARK)
        self.answer_start = tokenizer.encode(
            f"{HEADER}assistant{HEADER_END}\n\n", add_special_tokens=False
        ).ids

    def encode(self, chats: Iterable[Chat]) -> list[tuple[list[int], list[bool]]]:
        """Returns the ids of each chat, and for each id whether the model learns to generate it."""
        chats = list(chats)
        texts = [self.render(chat) for chat in chats]
        encodings = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        return [
            self.learned_all(encoding.ids) if chat.text else self.learned_answers(encoding.ids)
            for chat, encoding in zip(chats, encodings, strict=True)
        ]

    def learned_all(self, ids: list[int]) -> tuple[list[int], list[bool]]:
        return ids, [False] + [True] * (len(ids) - 1)

    def learned_answers(self, ids: list[int]) -> tuple[list[int], list[bool]]:
        kept: list[int] = []
        learned: list[bool] = []
        inside = marked = False
        for token in ids:
            if token == self.mark:
                marked = not marked
                continue
            kept.append(token)
            learned.append(inside and not marked)
            if token == self.turn_end:
                inside = marked = False
            elif kept[-len(self.answer_start) :] == self.answer_start:
                inside = True
        return kept, learned


def settings(context: int) -> dict[str, Any]:
    """Returns the checkout's tokenizer_config.json."""
    return {
        "add_bos_token": True,
        "added_tokens_decoder": {},
        "bos_token": BEGIN,
        "eos_token": TURN_END,
        "pad_token": MARK,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": context,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
