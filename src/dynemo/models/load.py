"""From a model's files to its card. Reading is split in two, so that the engine can be started
between: `read_model` takes what the engine is told, `ModelFiles.card` the rest."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import DecodeError, Struct, ValidationError, convert, json

from dynemo.errors import ModelError
from dynemo.messages.ask import Ask
from dynemo.models.checkout.read import Checkout, read_checkout
from dynemo.models.find import Found
from dynemo.models.gguf import Gguf, read_gguf
from dynemo.prompt.card.card import Card
from dynemo.prompt.template import ChatTemplate
from dynemo.tokenizers.base import Tokenizer

#: A GGUF's own sampling settings, as llama.cpp names them (`LLM_KV_GENERAL_SAMPLING_*`).
_GGUF_SAMPLING = {
    "general.sampling.temp": "temperature",
    "general.sampling.top_k": "top_k",
    "general.sampling.top_p": "top_p",
    "general.sampling.min_p": "min_p",
    "general.sampling.penalty_repeat": "repetition_penalty",
}
#: Templates that a GGUF without one would need are guessed by others; we ask instead.
_NO_TEMPLATE = (
    "{path} has no chat template; name the folder of a checkout that has one with --model-config."
)


class _Pretrained(Struct, frozen=True):
    architecture: str = ""
    vocab_size: int = 0


class _Build(Struct, frozen=True):
    max_seq_len: int = 0


class _EngineConfig(Struct, frozen=True):
    """The part that we read of a TensorRT-LLM engine's `config.json`."""

    pretrained_config: _Pretrained = _Pretrained()
    build_config: _Build = _Build()


@dataclass(frozen=True)
class ModelFiles:
    """What the files of one model say before its tokenizer is loaded."""

    name: str
    architecture: str
    size: int  #: of the weights' files, in bytes; 0 where nobody has counted
    context_length: int  #: 0 where they do not say
    kv_bytes_per_token: int  #: of a 16-bit cache; 0 where they do not say
    vocabulary: int  #: rows of the embedding; 0 where they do not say
    embeds: bool  #: it was made for embeddings
    card: Callable[[], Card]  #: loads tokenizer and template; raises ModelError


def read_model(found: Found, name: str | None, config: str | None) -> ModelFiles:
    """`name` and `config` are the user's own, in place of the files' name and tokenizer.

    Raises ModelError.
    """
    name = name or found.name
    other = _words(config)
    if found.kind == "gguf":
        return _of_gguf(read_gguf(found.path), name, other)
    if found.kind == "engine":
        return _of_engine(found.path, name, other)
    return _of_checkout(read_checkout(found.path), name, other)


def tokenizer_of(found: Found) -> Tokenizer:
    """The tokenizer alone; the files may hold nothing else. Raises ModelError."""
    if found.kind == "gguf":
        return _gguf_tokenizer(read_gguf(found.path))
    return read_checkout(found.path, needs_config=False).tokenizer


def speech_of(found: Found, config: str | None = None) -> tuple[ChatTemplate, Tokenizer]:
    """Template and tokenizer; the files may hold nothing else. `config` is as for `read_model`.
    Raises ModelError."""
    other = _words(config)
    if found.kind == "gguf":
        gguf = read_gguf(found.path)
        if other is None:
            return _gguf_template(gguf), _gguf_tokenizer(gguf)
        _check_vocabulary(gguf, other)
    checkout = other or read_checkout(found.path, needs_config=False)
    return checkout.template, checkout.tokenizer


def _words(config: str | None) -> Checkout | None:
    return read_checkout(Path(config).expanduser(), needs_config=False) if config else None


def _of_gguf(gguf: Gguf, name: str, other: Checkout | None) -> ModelFiles:
    if not gguf.has_weights:
        raise ModelError(f"{gguf.path} holds a vocabulary and no weights; give a whole model.")
    context_length, kv_bytes = gguf.context_length or 0, _gguf_kv_bytes(gguf)
    vocabulary, embeds = _gguf_vocabulary(gguf), _gguf_embeds(gguf)
    if other is not None:
        _check_vocabulary(gguf, other)

    def card() -> Card:
        eos_ids = sorted(gguf.special_ids.eog)
        return Card(
            name,
            gguf.architecture,
            other.tokenizer if other else _gguf_tokenizer(gguf),
            other.template if other else _gguf_template(gguf),
            tuple(dict.fromkeys([*eos_ids, *(other.eos_ids if other else ())])),
            context_length,
            kv_bytes,
            _defaults(other.defaults if other else _gguf_sampling(gguf.metadata)),
        )

    return ModelFiles(
        name, gguf.architecture, gguf.size, context_length, kv_bytes, vocabulary, embeds, card
    )


def _of_checkout(checkout: Checkout, name: str, other: Checkout | None) -> ModelFiles:
    words = other or checkout
    weights = sum(file.stat().st_size for file in checkout.folder.glob("*.safetensors"))

    def card() -> Card:
        return Card(
            name,
            checkout.architecture,
            words.tokenizer,
            words.template,
            tuple(dict.fromkeys([*checkout.eos_ids, *words.eos_ids])),
            checkout.context_length,
            checkout.kv_bytes_per_token,
            _defaults(words.defaults),
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


def _of_engine(folder: Path, name: str, other: Checkout | None) -> ModelFiles:
    """Of a folder that TensorRT-LLM built: weights and sizes, and no word of text."""
    if other is None:
        raise ModelError(
            f"{folder} is a TensorRT-LLM engine and has no tokenizer: name the checkout that it "
            "was built from with --model-config."
        )
    try:
        config = json.decode((folder / "config.json").read_bytes(), type=_EngineConfig)
    except (OSError, DecodeError) as error:
        raise ModelError(f"{folder / 'config.json'} cannot be read: {error}.") from None
    pretrained, context_length = config.pretrained_config, config.build_config.max_seq_len
    size = sum(file.stat().st_size for file in folder.glob("rank*.engine"))

    def card() -> Card:
        return Card(
            name,
            pretrained.architecture,
            other.tokenizer,
            other.template,
            other.eos_ids,
            context_length,
            0,
            _defaults(other.defaults),
        )

    return ModelFiles(
        name, pretrained.architecture, size, context_length, 0, pretrained.vocab_size, False, card
    )


def _check_vocabulary(gguf: Gguf, other: Checkout) -> None:
    """An id that the model does not have would fail each request that has it, or the engine."""
    count = _gguf_vocabulary(gguf)
    if other.tokenizer.vocab_size > count:
        raise ModelError(
            f"The tokenizer in {other.folder} has {other.tokenizer.vocab_size:,} tokens and "
            f"{gguf.path.name} has {count:,}: it is of another model; give --model-config "
            "the folder that the GGUF was made from."
        )


def _gguf_embeds(gguf: Gguf) -> bool:
    """How llama.cpp pools its states: 1 to 3 make one vector of a text (`LLM_KV_POOLING_TYPE`)."""
    return gguf.metadata.get(f"{gguf.architecture}.pooling_type") in (1, 2, 3)


def _gguf_vocabulary(gguf: Gguf) -> int:
    tokens: Any = gguf.metadata.get("tokenizer.ggml.tokens", [])
    return len(tokens)


def _gguf_tokenizer(gguf: Gguf) -> Tokenizer:
    from dynemo.tokenizers.gguf.tokenizer import load_tokenizer

    return load_tokenizer(gguf.metadata)


def _gguf_template(gguf: Gguf) -> ChatTemplate:
    if not gguf.chat_templates and _gguf_embeds(gguf):
        return ChatTemplate("", special_tokens={})  # nobody chats with it
    if not gguf.chat_templates:
        raise ModelError(_NO_TEMPLATE.format(path=gguf.path))
    tokens: Any = gguf.metadata["tokenizer.ggml.tokens"]
    ids = gguf.special_ids
    named = {"bos_token": ids.bos, "eos_token": ids.eos, "unk_token": ids.unk, "pad_token": ids.pad}
    special = {name: tokens[token_id] for name, token_id in named.items() if token_id is not None}
    return ChatTemplate(gguf.chat_templates, special_tokens=special)


def _gguf_kv_bytes(gguf: Gguf) -> int:
    """Keys and values of all layers in 16 bits; an upper bound for layers with a window."""

    def number(key: str) -> int:
        value = gguf.metadata.get(f"{gguf.architecture}.{key}", 0)
        if isinstance(value, list):  # one a layer
            value = max(value, default=0)
        return value if isinstance(value, int) else 0

    heads = number("attention.head_count")
    width = number("embedding_length") // heads if heads else 0
    keys = number("attention.key_length") or width
    values = number("attention.value_length") or width
    kv_heads = number("attention.head_count_kv") or heads
    return 2 * number("block_count") * kv_heads * (keys + values)


def _gguf_sampling(metadata: Mapping[str, object]) -> dict[str, Any]:
    return {name: metadata[key] for key, name in _GGUF_SAMPLING.items() if key in metadata}


def _defaults(settings: Mapping[str, Any]) -> Ask:
    known = {name: value for name, value in settings.items() if name in Ask.__struct_fields__}
    try:
        return convert(known, Ask, strict=False)
    except ValidationError as error:
        raise ModelError(f"The model's own sampling settings are wrong: {error}.") from None
