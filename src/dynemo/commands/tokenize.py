"""`dynemo-run tokenize` and `detokenize`: lines of JSON in, a line of JSON out for each.

A wrong line gives `{"error": "..."}`, and the next one is read. Blank lines are skipped. Fields
that a command does not use are ignored, so that a file of expected results can be its input.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from msgspec import DecodeError

from dynemo.errors import RequestError, UsageError
from dynemo.foreign import decode_any_json
from dynemo.spelling import quoted
from dynemo.tokenizers.base import Tokenizer


def tokenize(tokenizer: Tokenizer, source: str | Path | Iterable[bytes], out: TextIO) -> int:
    """Writes `{"ids": [...]}` for each line of `text`, `add_special` and `parse_special`.

    The defaults are those of llama.cpp's `/tokenize`: `add_special` false, `parse_special` true.
    `source` is a path, `-` for standard input, or lines. Each line is flushed. Returns the number
    of wrong lines. Raises UsageError for a file that cannot be read.
    """
    return _write(source, out, lambda value: {"ids": _encode(tokenizer, value)})


def detokenize(tokenizer: Tokenizer, source: str | Path | Iterable[bytes], out: TextIO) -> int:
    """Writes `{"deltas": [...]}` for each line of `ids`; otherwise as `tokenize`.

    There is one delta for each id, as in a stream: it is empty until a character is complete. One
    more follows if text was held back at the end.
    """
    return _write(source, out, lambda value: {"deltas": _deltas(tokenizer, value)})


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


def _write(
    source: str | Path | Iterable[bytes],
    out: TextIO,
    answer: Callable[[Mapping[str, Any]], dict[str, object]],
) -> int:
    wrong = 0
    for number, line in enumerate(_lines(source), 1):
        if not line.strip():
            continue
        try:
            result = answer(_object(line, number))
        except RequestError as error:
            wrong += 1
            result = {"error": str(error)}
        out.write(json.dumps(result) + "\n")
        out.flush()
    return wrong


def _lines(source: str | Path | Iterable[bytes]) -> Iterator[bytes]:
    if not isinstance(source, str | Path):
        yield from source
    elif str(source) == "-":
        yield from sys.stdin.buffer
    else:
        try:
            with open(source, "rb") as file:
                yield from file
        except OSError as error:
            raise UsageError(
                f"Cannot read {quoted(str(source))}: {error.strerror or error}."
            ) from None


def _object(line: bytes, number: int) -> Mapping[str, Any]:
    try:
        value = decode_any_json(line)
    except DecodeError as error:
        raise RequestError(f"Line {number} is not valid JSON: {error}.") from None
    if not isinstance(value, dict):
        raise RequestError(f"Line {number} is not a JSON object.")
    return value
