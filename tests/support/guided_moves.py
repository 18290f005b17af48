"""Cuts a guided answer after each of its tokens, and lets another instance continue it."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from jsonschema import Draft202012Validator
from msgspec import json, structs

from dynemo.messages.answer import Delta, Finish
from dynemo.messages.request import Guide, Request
from dynemo.serving.migration import MigrationState, text_codec
from dynemo.tokenizers.base import Tokenizer

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "share": {"type": "number", "minimum": 0, "maximum": 1},
        "tags": {"type": "array", "items": {"enum": ["aé", "ab", 'a"b']}, "maxItems": 2},
        "next": {"anyOf": [{"type": "null"}, {"const": "none"}]},
    },
    "required": ["name", "age", "share", "tags", "next"],
    "additionalProperties": False,
}
GUIDES = {
    "json_schema": Guide("json_schema", json.encode(PERSON).decode()),
    "regex": Guide("regex", r"(\d{2}/[a-cé]{3} ?){2,3}\."),
    "choice": Guide("choice", '["The capital","The capitals are","Thé","none"]'),
}

Collect = Callable[[Request], tuple[list[Any], Finish]]


def is_followed(kind: str, text: str) -> bool:
    """Whether a whole answer follows the guide of this kind."""
    guide = GUIDES[kind]
    if kind == "json_schema":
        return bool(Draft202012Validator(PERSON).is_valid(json.decode(text)))
    if kind == "choice":
        return text in json.decode(guide.text)
    return re.fullmatch(guide.text, text, re.ASCII) is not None


def text_of(tokenizer: Tokenizer, tokens: list[Any]) -> str:
    if any(isinstance(token, str) for token in tokens):
        return "".join(tokens)
    return tokenizer.decode(tokens)


def cut_answers(
    request: Request, kind: str, first: Collect, second: Collect, tokenizer: Tokenizer
) -> Iterator[tuple[str, str]]:
    """Yields for each cut the whole answer of `first`, and its answer that `second` continues."""
    request = structs.replace(request, guide=GUIDES[kind])
    tokens, finish = first(request)
    assert finish.reason == "stop"
    whole = text_of(tokenizer, tokens)
    for count in range(1, len(tokens)):
        progress = MigrationState(request, text_codec(tokenizer))
        part = tokens[:count]
        if isinstance(part[0], str):
            progress.take(Delta(texts=part))
        elif tokenizer.decode(part).endswith("\ufffd"):
            continue  # the pool passes on whole characters
        else:
            progress.take(Delta(part))
        if progress.complete() is not None:
            continue
        rest = progress.rest()
        assert rest.guide is not None
        written = rest.guide.written
        more, finish = second(rest)
        assert finish.reason == "stop"
        yield whole, written + text_of(tokenizer, more)
