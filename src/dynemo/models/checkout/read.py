"""A Hugging Face checkout: the small files beside the weights.

    config.json             architecture, context length, EOS ids
    generation_config.json  EOS ids, sampling
    tokenizer.json          the tokenizer
    tokenizer_config.json   control tokens, chat template
    chat_template.jinja     the chat template; overrides the one in tokenizer_config.json
    additional_chat_templates/NAME.jinja, chat_template.json, special_tokens_map.json

It reads what transformers writes, and the older forms that transformers still reads.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from msgspec import DecodeError

from dynemo.errors import ModelError
from dynemo.foreign import decode_any_json
from dynemo.models.checkout.config import (
    context_length,
    eos_ids,
    generation_defaults,
    kv_bytes_per_token,
    whole_number,
)
from dynemo.models.checkout.safetensors import check_whole
from dynemo.models.file_type import SNIFF_BYTES, FileType, advice_for, file_type_of
from dynemo.models.files import check_folder, read_model_file
from dynemo.prompt.template import ChatTemplate
from dynemo.spelling import quoted, shortened
from dynemo.tokenizers.hf.settings import named_tokens
from dynemo.tokenizers.hf.tokenizer import HfTokenizer

Json = Mapping[str, Any]

#: Other tokenizer files, which this program does not read.
_OTHER_TOKENIZERS = ("tokenizer.model", "tekken.json", "vocab.json", "tiktoken.model", "vocab.txt")


@dataclass(frozen=True)
class Checkout:
    """The content of a checkout. `config` is empty if the folder holds only a tokenizer.

    `templates` maps names (`default`, `tool_use`, ...) to sources; it may be empty.
    `special_tokens` are the template's variables (`bos_token`, `eos_token`, ...). `defaults` are
    the recommended sampling settings by their usual names.
    """

    folder: Path
    config: Json
    generation_config: Json
    tokenizer_config: Json
    templates: Mapping[str, str]
    special_tokens: Mapping[str, str]
    defaults: Mapping[str, float]

    @property
    def architecture(self) -> str:
        names = self.config.get("architectures")
        return str(names[0]) if isinstance(names, list) and names else self.model_type

    @property
    def model_type(self) -> str:
        return str(self.config.get("model_type") or "")

    @property
    def context_length(self) -> int:
        """The model's context in tokens, or 0 if its files do not tell."""
        return context_length(self.config)

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes per token of a 16-bit KV cache, or 0 if the files do not tell."""
        return kv_bytes_per_token(self.config)

    @property
    def vocab_size(self) -> int | None:
        """Rows of the model's embedding. There may be more rows than token ids."""
        return whole_number(self.config, "vocab_size")

    @cached_property
    def tokenizer(self) -> HfTokenizer:
        """The tokenizer, loaded on first use. Raises ModelError."""
        return HfTokenizer(self.folder / "tokenizer.json", self.tokenizer_config)

    @cached_property
    def template(self) -> ChatTemplate:
        """The chat template, compiled on first use. Raises ModelError, also if there is none."""
        if not self.templates:
            raise ModelError(
                f'"{self.folder}" has no chat template (no chat_template.jinja, and none in '
                "tokenizer_config.json). Use --model-config DIR to name the folder of a model "
                "that has one."
            )
        return ChatTemplate(self.templates, special_tokens=self.special_tokens)

    @cached_property
    def eos_ids(self) -> tuple[int, ...]:
        """The ids that end a generation, merged from all files. Loads the tokenizer."""
        ids = eos_ids(self.generation_config, self.config)
        eos_token = self.special_tokens.get("eos_token")
        if eos_token is not None:
            token_id = self.tokenizer.token_id(eos_token)
            if token_id is not None and token_id not in ids:
                ids.append(token_id)
        return tuple(ids)


def read_checkout(folder: str | Path, *, needs_config: bool = True) -> Checkout:
    """Reads the small files of the checkout in `folder` and the headers of its weights.

    It does not load the tokenizer yet. With `needs_config` false, a folder with only a tokenizer
    and a template is enough.

    Raises ModelError if a file is missing or broken, if weights are truncated, or if a shard of
    `model.safetensors.index.json` is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelError(f'"{folder}" is not a folder. Pass the folder that holds config.json.')
    if needs_config and not (folder / "config.json").is_file():
        raise ModelError(
            f'"{folder}" has no config.json, so it is not a checkout. Pass the folder that holds '
            "config.json."
        )
    check_folder(folder)
    _check_tokenizer(folder)
    if needs_config:
        _check_weights(folder)
    tokenizer_config = _tokenizer_config(folder)
    generation_config = _read_json(folder / "generation_config.json")
    return Checkout(
        folder=folder,
        config=_read_json(folder / "config.json"),
        generation_config=generation_config,
        tokenizer_config=tokenizer_config,
        templates=_templates(folder, tokenizer_config),
        special_tokens=named_tokens(tokenizer_config),
        defaults=generation_defaults(generation_config),
    )


def _check_tokenizer(folder: Path) -> None:
    if (folder / "tokenizer.json").is_file():
        return
    others = [name for name in _OTHER_TOKENIZERS if (folder / name).exists()]
    if not others:
        raise ModelError(
            f'"{folder}" has no tokenizer.json. Download the model\'s tokenizer files.'
        )
    raise ModelError(
        f'"{folder}" has no tokenizer.json, only {", ".join(others)}. Convert it once with '
        "transformers, in Python: from transformers import AutoTokenizer; "
        f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})."
    )


def _check_weights(folder: Path) -> None:
    index = _read_json(folder / "model.safetensors.index.json")
    names = index.get("weight_map", {})
    if not isinstance(names, Mapping):
        raise ModelError(
            f'"{folder / "model.safetensors.index.json"}" has no "weight_map" object. '
            "Download it again."
        )
    shards = sorted({str(name) for name in names.values()})
    outside = [name for name in shards if Path(name).name != name or len(name) > 255]
    if outside:
        raise ModelError(
            f'"{folder / "model.safetensors.index.json"}" names the weight file '
            f"{quoted(shortened(outside[0], 100))}, which is not a file of its folder. Download it "
            "again."
        )
    missing = [name for name in shards if not (folder / name).is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(
            f'"{folder}" lacks {missing[0]}{more} of the {len(shards)} weight files in '
            "model.safetensors.index.json. Download the model again."
        )
    for file in [folder / name for name in shards] or sorted(folder.glob("*.safetensors")):
        check_whole(file)


def _tokenizer_config(folder: Path) -> Json:
    """Returns `tokenizer_config.json`, plus the control tokens of `special_tokens_map.json`."""
    settings = _read_json(folder / "tokenizer_config.json")
    if "added_tokens_decoder" in settings:
        return settings
    return {**settings, **_read_json(folder / "special_tokens_map.json")}


def _templates(folder: Path, tokenizer_config: Json) -> dict[str, str]:
    templates: dict[str, str] = {}
    if (folder / "chat_template.jinja").is_file():
        templates["default"] = _read_text(folder / "chat_template.jinja")
    for file in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        templates[file.stem] = _read_text(file)
    if templates:
        return templates
    for name in ("tokenizer_config.json", "chat_template.json"):
        settings = (
            tokenizer_config if name == "tokenizer_config.json" else _read_json(folder / name)
        )
        templates = _listed_templates(settings.get("chat_template"), folder / name)
        if templates:
            return templates
    return {}


def _listed_templates(value: object, file: Path) -> dict[str, str]:
    """Returns templates by name. `value` is a source, a list of named templates, or a mapping."""
    if value is None:
        return {}
    if isinstance(value, str):
        return {"default": value}
    if isinstance(value, Mapping):
        value = [{"name": name, "template": source} for name, source in value.items()]
    if isinstance(value, list):
        pairs = [(v.get("name"), v.get("template")) for v in value if isinstance(v, Mapping)]
        named = {n: s for n, s in pairs if isinstance(n, str) and isinstance(s, str)}
        if len(named) == len(value):
            return named
    raise ModelError(
        f'"chat_template" in "{file}" must be a template, or a list of objects with "name" and '
        '"template".'
    )


def _read_json(file: Path) -> Json:
    """Returns the object in a file, or an empty one if the file does not exist."""
    if not file.is_file():
        return {}
    text = _read_text(file).removeprefix("\ufeff")
    try:
        value = decode_any_json(text)
    except DecodeError as error:
        file_type = file_type_of(text[:SNIFF_BYTES].encode())
        if file_type in (FileType.JSON, FileType.TEXT):
            raise ModelError(
                f'"{file}" is not valid JSON: {error}. Correct it, or download it again.'
            ) from None
        raise ModelError(f'"{file}" is {file_type}, not JSON. {advice_for(file_type)}') from None
    if not isinstance(value, dict):
        raise ModelError(f'"{file}" must hold a JSON object. Download it again.')
    return value


def _read_text(file: Path) -> str:
    try:
        return read_model_file(file).decode()
    except UnicodeDecodeError:
        raise ModelError(f'"{file}" is not UTF-8 text. Download it again.') from None
