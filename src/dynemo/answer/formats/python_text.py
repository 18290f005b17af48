"""Reads Python literals that arrive in pieces, and gives them out as JSON.

JSON's own literals (`true`, `false`, `null`) count too, because models mix both.
"""

import re

from dynemo.answer.formats.json_text import escaped
from dynemo.answer.formats.source import Emit, NotACall, Source, Steps
from dynemo.limits import JSON_DEPTH, JSON_NUMBER_CHARACTERS

_WORDS = {"True": "true", "False": "false", "None": "null"}
_WORDS |= {"true": "true", "false": "false", "null": "null"}
_LETTERS = re.compile(r"[A-Za-z]*")
_SIGNS = re.compile(r"[-+.0-9eE_]*")
_NUMBER = re.compile(r"[-+]?(?:[0-9][0-9_]*)?\.?[0-9]*(?:[eE][-+]?[0-9]+)?")
_PLAIN = {'"': re.compile(r'[^"\\]*'), "'": re.compile(r"[^'\\]*")}
_ESCAPE = re.compile(
    r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U00[0-9a-fA-F]{6}|[0-7]{1,3}(?![0-7])|[^xuU0-7])",
    re.DOTALL,
)
_SAID = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "\n": ""}
_ESCAPE_CHARACTERS = 10
_CLOSERS = {"[": "]", "(": ")", "{": "}"}


def read_literal(source: Source, emit: Emit) -> Steps[None]:
    """Reads one literal, without the white space around it."""
    yield from _read(source, emit, JSON_DEPTH)


def _read(source: Source, emit: Emit, depth: int) -> Steps[None]:
    char = yield from source.spaces()
    if char in ("'", '"'):
        yield from _strings(source, emit)
    elif char in _CLOSERS and char:
        if not depth:
            raise NotACall
        source.take(source.at + 1)
        yield from _items(source, emit, char, depth - 1)
    elif char.isalpha():
        yield from _word(source, emit)
    else:
        emit((yield from _number(source)))


def _items(source: Source, emit: Emit, opener: str, depth: int) -> Steps[None]:
    closer = _CLOSERS[opener]
    emit("{" if opener == "{" else "[")
    is_first = True
    while True:
        if (yield from source.spaces()) == closer:
            break
        if not is_first:
            emit(", ")
        is_first = False
        if opener == "{":
            yield from _key(source, emit)
        yield from _read(source, emit, depth)
        yield from source.spaces()
        if not (yield from source.has((",",))):
            break
    yield from source.expect(closer)
    emit("}" if opener == "{" else "]")


def _key(source: Source, emit: Emit) -> Steps[None]:
    if (yield from source.spaces()) not in ("'", '"'):
        raise NotACall
    yield from _strings(source, emit)
    yield from source.expect(":")
    emit(": ")


def _word(source: Source, emit: Emit) -> Steps[None]:
    while True:
        match = _LETTERS.match(source.text, source.at)
        end = match.end() if match else source.at
        if end - source.at > len("False"):
            raise NotACall
        if end < len(source.text) or source.is_over:
            break
        yield
    word = _WORDS.get(source.text[source.at : end])
    if word is None:
        raise NotACall
    source.take(end)
    emit(word)


def _number(source: Source) -> Steps[str]:
    end = yield from source.run_of(_SIGNS, JSON_NUMBER_CHARACTERS)
    text = source.text[source.at : end]
    number = text.replace("_", "").removeprefix("+")
    sign, digits = ("-", number[1:]) if number[:1] == "-" else ("", number)
    if not _NUMBER.fullmatch(text) or not any(char.isdigit() for char in text):
        raise NotACall
    if digits[:1] == ".":
        digits = "0" + digits
    head, exponent, tail = digits.partition("e" if "e" in digits else "E")
    if head[-1:] == ".":
        head += "0"
    value = f"{sign}{head}{exponent}{tail}"
    if head[:1] == "0" and head[1:2].isdigit():
        raise NotACall  # Python does not allow `007`
    source.take(end)
    return value


def _strings(source: Source, emit: Emit) -> Steps[None]:
    quote = source.text[source.at]
    emit('"')
    source.take(source.at + 1)
    if (yield from source.has((quote * 2,))):
        yield from _long(source, emit, quote)
    else:
        yield from _short(source, emit, quote)
    emit('"')


def _plain_run(source: Source, emit: Emit, quote: str) -> int:
    """Takes the text that has come up to a quote or a backslash. Returns the place behind it."""
    match = _PLAIN[quote].match(source.text, source.at)
    end = match.end() if match else source.at
    if end > source.at:
        emit(escaped(source.take(end)))
    return end


def _short(source: Source, emit: Emit, quote: str) -> Steps[None]:
    while True:
        end = _plain_run(source, emit, quote)
        if end < len(source.text):
            if source.text[end] == quote:
                source.take(end + 1)
                return
            emit(escaped((yield from _escape(source))))
        else:
            yield from source.need()


def _long(source: Source, emit: Emit, quote: str) -> Steps[None]:
    """Reads the rest of a string that has three quotes around it."""
    while True:
        end = _plain_run(source, emit, quote)
        if end == len(source.text):
            yield from source.need()
        elif source.text[end] != quote:
            emit(escaped((yield from _escape(source))))
        elif (yield from source.has((quote * 3,))):
            return
        else:
            emit(escaped(source.take(source.at + 1)))


def _escape(source: Source) -> Steps[str]:
    """Takes an escape, and returns what it says."""
    while len(source.text) - source.at <= _ESCAPE_CHARACTERS and not source.is_over:
        if _ESCAPE.match(source.text, source.at) and source.text[source.at + 1] not in "01234567":
            break
        yield
    match = _ESCAPE.match(source.text, source.at)
    if not match:
        raise NotACall
    body = source.take(match.end())[1:]
    if body[0] in "xuU":
        code = int(body[1:], 16)
    elif body[0] in "01234567":
        code = int(body, 8)
    else:
        return _SAID.get(body, body if body in "\\'\"" else "\\" + body)
    return "\ufffd" if 0xD800 <= code < 0xE000 or code > 0x10FFFF else chr(code)
