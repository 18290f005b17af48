"""`dynemo-run tokenize` and `detokenize`."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from dynemo.commands.lines import write_lines
from dynemo.errors import RequestError
from dynemo.tokenizers.base import Tokenizer


def tokenize(tokenizer: Tokenizer, source: str | Path | Iterable[bytes], out: TextIO) -> int:
    """Writes `{"ids": [...]}` for each line of `text`, `add_special` and `parse_special`.

    The defaults are those of llama.cpp's `/tokenize`: `add_special` false, `parse_special` true.
    `source` is a path, `-` for standard input, or lines. Each line is flushed. Returns the number
    of wrong lines. Raises UsageError for a file that cannot be read.
    """
    return write_lines(source, out, lambda value: {"ids": _encode(tokenizer, value)})


def detokenize(tokenizer: Tokenizer, source: str | Path | Iterable[bytes], out: TextIO) -> int:
    """Writes `{"deltas": [...]}` for each line of `ids`; otherwise as `tokenize`.

    There is one delta for each id, as in a stream: it is empty until a character is complete. One
    more follows if text was held back at the end.
    """
    return write_lines(source, out, lambda value: {"deltas": _deltas(tokenizer, value)})


def _encode(tokenizer: Tokenizer, value: Mapping[str, Any]) -> list[int]:
    text = value.get("text")
    if not isinstance(text, str):
        raise RequestError('"text" must be a string.', param="text")
    return tokenizer.encode(
        text,
        add_special=_flag(value, "add_special", False),
        parse_special=_flag(value, "parse_special", True),
    )


def _flag(value: Mapping[str, Any], name: str, default: bool) -> bool:
    flag = value.get(name, default)
    if not isinstance(flag, bool):
        raise RequestError(f'"{name}" must be true or false.', param=name)
    return flag


def _deltas(tokenizer: Tokenizer, value: Mapping[str, Any]) -> list[str]:
    ids = value.get("ids")
    if not isinstance(ids, list) or not all(type(token_id) is int for token_id in ids):
        raise RequestError('"ids" must be a list of whole numbers.', param="ids")
    for token_id in ids:
        if not 0 <= token_id < tokenizer.vocab_size:
            raise RequestError(
                f"There is no token {token_id}; the ids are 0 to {tokenizer.vocab_size - 1}.",
                param="ids",
            )
    stream = tokenizer.detokenizer()
    deltas = [stream.feed((token_id,)) for token_id in ids]
    rest = stream.flush()
    return [*deltas, rest] if rest else deltas
