"""Reads JSON that arrives in pieces. All counting of braces is done here.

A model may write a raw newline or tab inside a string. Strict readers refuse that, so it is passed
on as an escape. Other text that is not JSON raises NotACall.
"""

import re
from json.encoder import encode_basestring

from dynemo.answer.formats.source import Emit, NotACall, Source, Steps
from dynemo.limits import JSON_DEPTH, JSON_NUMBER_CHARACTERS, NAME_CHARACTERS

_SPACE = re.compile(r"[ \t\r\n]*")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_ESCAPE_START = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?\Z")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NUMBER_PART = re.compile(r"[-+.0-9eE]*")
_LITERALS = ("true", "false", "null")
_PAIRS = {"{": "}", "[": "]"}
_UNESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def quoted(text: str) -> str:
    """Returns the text as a JSON string."""
    return encode_basestring(text)


def escaped(text: str) -> str:
    """Returns the text as a part of a JSON string."""
    return encode_basestring(text)[1:-1]


def read_value(source: Source, emit: Emit) -> Steps[None]:
    """Reads one value, without the white space around it, and gives its text to `emit`."""
    closers: list[str] = []  # of the objects and arrays that are open
    is_first = True  # nothing stands in the innermost one yet
    while True:
        char = yield from _spaces(source, emit)
        if closers:
            if char == closers[-1] and is_first:
                emit(source.take(source.at + 1))
                closers.pop()
                if (yield from _after(source, emit, closers)):
                    return
                is_first = False
                continue
            if closers[-1] == "}":
                yield from _key(source, emit)
                char = yield from _spaces(source, emit)
        if char in _PAIRS:
            if len(closers) == JSON_DEPTH:
                raise NotACall
            emit(source.take(source.at + 1))
            closers.append(_PAIRS[char])
            is_first = True
            continue
        yield from _scalar(source, emit, char)
        if (yield from _after(source, emit, closers)):
            return
        is_first = False


def _after(source: Source, emit: Emit, closers: list[str]) -> Steps[bool]:
    """Reads the closing brackets and the comma after a value. Returns whether all is closed."""
    while closers:
        char = yield from _spaces(source, emit)
        if char == ",":
            emit(source.take(source.at + 1))
            return False
        if char != closers[-1]:
            raise NotACall
        emit(source.take(source.at + 1))
        closers.pop()
    return True


def _spaces(source: Source, emit: Emit) -> Steps[str]:
    """Passes white space on, and returns the next character."""
    while True:
        match = _SPACE.match(source.text, source.at)
        if match and match.end() > source.at:
            emit(source.take(match.end()))
        if source.at < len(source.text):
            return source.text[source.at]
        yield from source.need()


def _key(source: Source, emit: Emit) -> Steps[None]:
    yield from read_string(source, emit)
    if (yield from _spaces(source, emit)) != ":":
        raise NotACall
    emit(source.take(source.at + 1))


def _scalar(source: Source, emit: Emit, char: str) -> Steps[None]:
    if char == '"':
        yield from read_string(source, emit)
    elif char in "tfn":
        literal = yield from source.has(_LITERALS)
        if not literal:
            raise NotACall
        emit(literal)
    else:
        emit((yield from _number(source)))


def _number(source: Source) -> Steps[str]:
    end = yield from source.run_of(_NUMBER_PART, JSON_NUMBER_CHARACTERS)
    if not _NUMBER.fullmatch(source.text, source.at, end):
        raise NotACall
    return source.take(end)


def read_string(source: Source, emit: Emit) -> Steps[None]:
    """Reads one string with its quotes."""
    yield from _begin_string(source)
    emit('"')
    while (run := (yield from _run(source))) != '"':
        emit(run if run[0] == "\\" else escaped(run) if run < " " else run)
    emit('"')


def read_short_string(source: Source) -> Steps[str]:
    """Reads one string of at most NAME_CHARACTERS characters, and returns what it says."""
    parts: list[str] = []
    yield from read_string_text(source, parts.append, NAME_CHARACTERS)
    return "".join(parts)


def read_string_text(source: Source, emit: Emit, most: int = 2**62) -> Steps[None]:
    """Reads one string, and gives what it says to `emit`, without quotes and escapes."""
    yield from _begin_string(source)
    high = 0  # the first half of a character that is two escapes
    while (run := (yield from _run(source, most))) != '"':
        most -= len(run)
        code = int(run[2:], 16) if run.startswith("\\u") else 0
        if high:
            if 0xDC00 <= code < 0xE000:
                emit(chr(0x10000 + ((high - 0xD800) << 10) + code - 0xDC00))
                high = 0
                continue
            emit("\ufffd")
            high = 0
        if 0xD800 <= code < 0xDC00:
            high = code
        elif run.startswith("\\u"):
            emit("\ufffd" if 0xDC00 <= code < 0xE000 else chr(code))
        else:
            emit(_UNESCAPED.get(run[1], run[1]) if run[0] == "\\" else run)
    if high:
        emit("\ufffd")


def _begin_string(source: Source) -> Steps[None]:
    if (yield from source.peek()) != '"':
        raise NotACall
    source.take(source.at + 1)


def _run(source: Source, most: int = 2**62) -> Steps[str]:
    """Takes the next part of a string: a run of text, an escape, a raw control, or its end."""
    while True:
        text, at = source.text, source.at
        match = _PLAIN.match(text, at)
        end = min(match.end(), at + most) if match else at
        if end > at:
            return source.take(end)
        if at < len(text):
            if most <= 0 and text[at] != '"':
                raise NotACall
            if text[at] != "\\":
                return source.take(at + 1)
            escape = _ESCAPE.match(text, at)
            if escape:
                return source.take(escape.end())
            if not _ESCAPE_START.match(text, at):
                raise NotACall
        yield from source.need()
