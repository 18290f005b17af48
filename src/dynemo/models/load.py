"""Builds a model's card from its files, in two steps.

`read_model` reads what the engine needs, so that the engine can start loading. Then
`ModelFiles.card` reads the rest.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

from msgspec import DecodeError, Struct, ValidationError, convert

from dynemo.answer.formats.choose import choose_format
from dynemo.errors import ModelError
from dynemo.foreign import decode_json
from dynemo.messages.ask import Ask
from dynemo.models.checkout.read import Checkout, read_checkout
from dynemo.models.files import check_folder, read_model_file
from dynemo.models.find import Found
from dynemo.models.gguf import Gguf, read_gguf
from dynemo.prompt.card.card import Card, with_format
from dynemo.prompt.control.texts import ControlTexts, control_texts
from dynemo.prompt.template import ChatTemplate
from dynemo.tokenizers.base import Tokenizer

#: A GGUF's own sampling settings, by llama.cpp's names (`LLM_KV_GENERAL_SAMPLING_*`).
_GGUF_SAMPLING = {
    "general.sampling.temp": "temperature",
    "general.sampling.top_k": "top_k",
    "general.sampling.top_p": "top_p",
    "general.sampling.min_p": "min_p",
    "general.sampling.penalty_repeat": "repetition_penalty",
}
#: Other programs guess the template of a GGUF without one. This program asks the user.
_NO_TEMPLATE = (
    '"{path}" has no chat template. Use --model-config DIR to name the folder of a checkout that '
    "has one."
)


class _Pretrained(Struct, frozen=True):
    architecture: str = ""
    vocab_size: int = 0


class _Build(Struct, frozen=True):
    max_seq_len: int = 0


class _EngineConfig(Struct, frozen=True):
    """The part of a TensorRT-LLM engine's `config.json` that this program reads."""

    pretrained_config: _Pretrained = _Pretrained()
    build_config: _Build = _Build()


@dataclass(frozen=True)
class ModelFiles:
    """The content of one model's files, without the tokenizer."""

    name: str
    architecture: str
    size: int  #: of the weight files, in bytes; 0 if unknown
    context_length: int  #: 0 if unknown
    kv_bytes_per_token: int  #: of a 16-bit cache; 0 if unknown
    vocabulary: int  #: rows of the embedding; 0 if unknown
    embeds: bool  #: the model was made for embeddings
    card: Callable[[], Card]  #: loads tokenizer and template; raises ModelError


def read_model(
    found: Found, name: str | None, config: str | None, formats: tuple[str, str] = ("", "")
) -> ModelFiles:
    """Reads a model's files, without the tokenizer.

    `name` replaces the files' name. `config` is the folder of a checkout whose tokenizer and chat
    template replace the files' own. `formats` name the formats of tool calls and of reasoning;
    where one is empty, the chat template decides. Raises ModelError.
    """
    name = name or found.name
    override = _tokenizer_source(config)
    with _usable(found.path):
        if found.format == "gguf":
            files = _of_gguf(read_gguf(found.path), name, override)
        elif found.format == "engine":
            files = _of_engine(found.path, name, override)
        else:
            files = _of_checkout(read_checkout(found.path), name, override)

    def card() -> Card:
        with _usable(found.path):
            made = files.card()
        tools, reasoning = formats
        found_format = choose_format(made.template, tool_format=tools, reasoning_format=reasoning)
        return with_format(made, found_format)

    return replace(files, card=card)


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    """Raises ModelError for values of a wrong kind, wherever a reader first meets them."""
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise ModelError(
            f'"{path}" has values that no model has ({error}). Download the model again.'
        ) from error


def tokenizer_of(found: Found) -> Tokenizer:
    """Loads the tokenizer of a model. The files need not hold anything else. Raises ModelError."""
    with _usable(found.path):
        if found.format == "gguf":
            return _gguf_tokenizer(read_gguf(found.path))
        return read_checkout(found.path, needs_config=False).tokenizer


@dataclass(frozen=True)
class PromptParts:
    """The parts of a card from which a prompt is made."""

    template: ChatTemplate
    tokenizer: Tokenizer
    control: ControlTexts


def template_and_tokenizer_of(
    found: Found, config: str | None = None
) -> tuple[ChatTemplate, Tokenizer]:
    """Loads the chat template and the tokenizer of a model. Raises ModelError."""
    parts = prompt_parts_of(found, config)
    return parts.template, parts.tokenizer


def prompt_parts_of(found: Found, config: str | None = None) -> PromptParts:
    """Loads what makes prompts of a model. The files need not hold anything else.

    `config` is as for `read_model`. Raises ModelError.
    """
    override = _tokenizer_source(config)
    with _usable(found.path):
        if found.format == "gguf":
            gguf = read_gguf(found.path)
            if override is None:
                eos_ids = sorted(gguf.special_ids.eog)
                return _prompt_parts(_gguf_template(gguf), _gguf_tokenizer(gguf), eos_ids)
            _check_vocabulary(gguf, override)
        checkout = override or read_checkout(found.path, needs_config=False)
        return _prompt_parts(checkout.template, checkout.tokenizer, checkout.eos_ids)


def _prompt_parts(
    template: ChatTemplate, tokenizer: Tokenizer, eos_ids: Iterable[int]
) -> PromptParts:
    return PromptParts(template, tokenizer, control_texts(template, tokenizer, eos_ids))


def _tokenizer_source(config: str | None) -> Checkout | None:
    return read_checkout(Path(config).expanduser(), needs_config=False) if config else None


def _of_gguf(gguf: Gguf, name: str, override: Checkout | None) -> ModelFiles:
    if not gguf.has_weights:
        raise ModelError(f'"{gguf.path}" holds a vocabulary but no weights. Pass a complete model.')
    context_length, kv_bytes = gguf.context_length or 0, _gguf_kv_bytes(gguf)
    vocabulary, embeds = _gguf_vocabulary(gguf), _gguf_embeds(gguf)
    if override is not None:
        _check_vocabulary(gguf, override)

    def card() -> Card:
        eos_ids = sorted(gguf.special_ids.eog)
        return Card(
            name,
            gguf.architecture,
            override.tokenizer if override else _gguf_tokenizer(gguf),
            override.template if override else _gguf_template(gguf),
            tuple(dict.fromkeys([*eos_ids, *(override.eos_ids if override else ())])),
            context_length,
            kv_bytes,
            _defaults(override.defaults if override else _gguf_sampling(gguf.metadata)),
        )

    return ModelFiles(
        name, gguf.architecture, gguf.size, context_length, kv_bytes, vocabulary, embeds, card
    )


def _of_checkout(checkout: Checkout, name: str, override: Checkout | None) -> ModelFiles:
    source = override or checkout
    weights = sum(file.stat().st_size for file in checkout.folder.glob("*.safetensors"))

    def card() -> Card:
        return Card(
            name,
            checkout.architecture,
            source.tokenizer,
            source.template,
            tuple(dict.fromkeys([*checkout.eos_ids, *source.eos_ids])),
            checkout.context_length,
            checkout.kv_bytes_per_token,
            _defaults(source.defaults),
        )

    return ModelFiles(
        name,
        checkout.architecture,
        weights,
        checkout.context_length,
        checkout.kv_bytes_per_token,
        checkout.vocab_size or 0,
        False,
        card,
    )


def _of_engine(folder: Path, name: str, override: Checkout | None) -> ModelFiles:
    """Reads a folder that TensorRT-LLM built, which has weights and sizes but no tokenizer."""
    if override is None:
        raise ModelError(
            f'"{folder}" is a TensorRT-LLM engine and has no tokenizer. Use --model-config DIR '
            "to name the checkout that it was built from."
        )
    check_folder(folder)
    try:
        config = decode_json(read_model_file(folder / "config.json"), _EngineConfig)
    except DecodeError as error:
        raise ModelError(f'"{folder / "config.json"}" cannot be read: {error}.') from None
    pretrained, context_length = config.pretrained_config, config.build_config.max_seq_len
    size = sum(file.stat().st_size for file in folder.glob("rank*.engine"))

    def card() -> Card:
        return Card(
            name,
            pretrained.architecture,
            override.tokenizer,
            override.template,
            override.eos_ids,
            context_length,
            0,
            _defaults(override.defaults),
        )

    return ModelFiles(
        name, pretrained.architecture, size, context_length, 0, pretrained.vocab_size, False, card
    )


def _check_vocabulary(gguf: Gguf, override: Checkout) -> None:
    """Checks that every token id exists in the model.

    Otherwise a request, or the engine, would fail.
    """
    count = _gguf_vocabulary(gguf)
    if override.tokenizer.vocab_size > count:
        raise ModelError(
            f'The tokenizer in "{override.folder}" has {override.tokenizer.vocab_size:,} tokens, '
            f"but {gguf.path.name} has {count:,}, so it belongs to another model. Use "
            "--model-config to name the folder that the GGUF was made from."
        )


def _gguf_embeds(gguf: Gguf) -> bool:
    """Whether llama.cpp pools the states into one vector per text (`LLM_KV_POOLING_TYPE`)."""
    return gguf.metadata.get(f"{gguf.architecture}.pooling_type") in (1, 2, 3)


def _gguf_vocabulary(gguf: Gguf) -> int:
    tokens: Any = gguf.metadata.get("tokenizer.ggml.tokens", [])
    return len(tokens)


def _gguf_tokenizer(gguf: Gguf) -> Tokenizer:
    from dynemo.tokenizers.gguf.tokenizer import load_tokenizer

    return load_tokenizer(gguf.metadata)


def _gguf_template(gguf: Gguf) -> ChatTemplate:
    if not gguf.chat_templates and _gguf_embeds(gguf):
        return ChatTemplate("", special_tokens={})  # an embedding model has no chats
    if not gguf.chat_templates:
        raise ModelError(_NO_TEMPLATE.format(path=gguf.path))
    tokens: Any = gguf.metadata["tokenizer.ggml.tokens"]
    ids = gguf.special_ids
    named = {"bos_token": ids.bos, "eos_token": ids.eos, "unk_token": ids.unk, "pad_token": ids.pad}
    special = {name: tokens[token_id] for name, token_id in named.items() if token_id is not None}
    return ChatTemplate(gguf.chat_templates, special_tokens=special)


def _gguf_kv_bytes(gguf: Gguf) -> int:
    """Returns the bytes per token of all layers' keys and values in 16 bits.

    This is an upper bound for layers with a sliding window.
    """

    def number(key: str) -> int:
        value = gguf.metadata.get(f"{gguf.architecture}.{key}", 0)
        if isinstance(value, list):  # one per layer
            value = max(value, default=0)
        return value if isinstance(value, int) else 0

    heads = number("attention.head_count")
    width = number("embedding_length") // heads if heads else 0
    keys = number("attention.key_length") or width
    values = number("attention.value_length") or width
    kv_heads = number("attention.head_count_kv") or heads
    return max(0, 2 * number("block_count") * kv_heads * (keys + values))


def _gguf_sampling(metadata: Mapping[str, object]) -> dict[str, Any]:
    return {name: metadata[key] for key, name in _GGUF_SAMPLING.items() if key in metadata}


def _defaults(settings: Mapping[str, Any]) -> Ask:
    known = {name: value for name, value in settings.items() if name in Ask.__struct_fields__}
    for name, value in known.items():
        if isinstance(value, float) and not isfinite(value):
            raise ModelError(
                f"The model's own sampling settings are invalid: {name} is {value}. Correct its "
                "generation_config.json, or download the model again."
            )
    try:
        return convert(known, Ask, strict=False)
    except ValidationError as error:
        raise ModelError(f"The model's own sampling settings are invalid: {error}.") from None
