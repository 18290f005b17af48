"""Refuses a `tokenizer.json` whose steps could turn a short text into an endless one.

The `tokenizers` library runs the steps of the file as they are. It takes seconds for a text that a
step has made a million times longer.
"""

from collections.abc import Iterator
from typing import Any

from msgspec import DecodeError, Raw, Struct

from dynemo.errors import ModelError
from dynemo.foreign import json_decoder
from dynemo.limits import ADDED_TOKENS, TOKENIZER_TEXT

#: How much longer the steps together may make a text.
_GROWTH = 64
_STEPS = 1000


class _File(Struct):
    """The parts that every text goes through. The model, which is large, is skipped."""

    added_tokens: list[Raw] | None = None
    normalizer: Any = None
    pre_tokenizer: Any = None
    post_processor: Any = None


_decode = json_decoder(_File)


def check_steps(file: bytes, label: str) -> None:
    """Raises ModelError. A file that is not JSON is left to the library, which says why."""
    try:
        parts = _decode(file)
    except DecodeError:
        return
    added = len(parts.added_tokens or ())
    if added > ADDED_TOKENS:
        raise _refused(label, f"adds {added:,} tokens")
    growth = 1
    steps = list(_steps([parts.normalizer, parts.pre_tokenizer, parts.post_processor]))
    for step in steps:
        for name in ("prepend", "content", "replacement"):
            text = step.get(name)
            if isinstance(text, str) and len(text) > TOKENIZER_TEXT:
                raise _refused(label, f'has a "{name}" of {len(text):,} characters')
        if step.get("type") == "Replace":
            growth *= max(1, len(str(step.get("content"))))
        if growth > _GROWTH or len(steps) > _STEPS:
            raise _refused(label, "has steps that make a text much longer")


def _steps(parts: list[Any]) -> Iterator[dict[str, Any]]:
    """Yields the objects in the parts, at any depth."""
    rest = list(parts)
    while rest:
        part = rest.pop()
        if isinstance(part, dict):
            yield part
            rest += part.values()
        elif isinstance(part, list):
            rest += part


def _refused(label: str, what: str) -> ModelError:
    return ModelError(
        f"The tokenizer in {label} {what}. It would hold up all requests. Use the tokenizer.json "
        "of the model's authors."
    )
