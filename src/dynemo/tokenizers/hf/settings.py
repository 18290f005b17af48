"""The tokens in a checkout's `tokenizer_config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

from dynemo.limits import ADDED_TOKENS

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_LISTS = ("added_tokens_decoder", "extra_special_tokens", "additional_special_tokens")


def relevant_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that `add_tokens` reads. Others may be long (old chat templates)."""
    return {k: v for k, v in settings.items() if k in _LISTS or k.endswith("_token")}


def add_tokens(backend: Backend, settings: Mapping[str, Any]) -> None:
    from tokenizers import AddedToken

    known = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    listed = settings.get("added_tokens_decoder")
    tokens: list[AddedToken] = []
    if isinstance(listed, Mapping):
        if len(listed) > ADDED_TOKENS:
            raise ValueError(f"it lists {len(listed):,} tokens")
        for _, fields in sorted(listed.items(), key=lambda item: int(item[0])):
            # The library prints a warning on stdout for any unknown field.
            token = AddedToken(fields["content"], **{k: fields[k] for k in _FLAGS if k in fields})
            if known.get(token.content) != token:
                known[token.content] = token
                tokens.append(token)
    for content in [*named_tokens(settings).values(), *_extra_tokens(settings)]:
        if content not in known or not known[content].special:
            known[content] = AddedToken(content, normalized=False, special=True)
            tokens.append(known[content])
    # The library builds its tables again at each call, so few calls are much faster.
    for is_special, run in groupby(tokens, lambda token: bool(token.special)):
        (backend.add_special_tokens if is_special else backend.add_tokens)(list(run))


def named_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """Returns the named control tokens of a `tokenizer_config.json`, by name (`bos_token`, ...)."""
    extra = settings.get("extra_special_tokens")
    named = {**settings, **extra} if isinstance(extra, Mapping) else settings
    texts = {name: _content(value) for name, value in named.items() if name.endswith("_token")}
    return {name: text for name, text in texts.items() if text}


def _extra_tokens(settings: Mapping[str, Any]) -> list[str]:
    extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens")
    return [text for value in extra if (text := _content(value))] if isinstance(extra, list) else []


def _content(token: object) -> str:
    """Returns a token's text, which older files wrap in an object."""
    value = token.get("content") if isinstance(token, Mapping) else token
    return value if isinstance(value, str) else ""
