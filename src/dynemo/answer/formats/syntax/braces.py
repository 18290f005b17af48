"""Calls as a name and an object without quotes around keys: `call:f{a:<|"|>x<|"|>,b:[1]}`."""

from dynemo.answer.formats.call import CallWriter
from dynemo.answer.formats.json_text import escaped, quoted, read_string
from dynemo.answer.formats.schema import json_value
from dynemo.answer.formats.source import Emit, Marks, NotACall, Steps
from dynemo.limits import JSON_DEPTH, NAME_CHARACTERS

_FOLLOWERS = (",", "}", "]", ":")
_WORD_END = (",", "}", "]")
_BRACE = Marks(("{",))
_COLON = Marks((":",))


def read_calls(calls: CallWriter) -> Steps[None]:
    """Reads one call."""
    source = calls.source
    name, _ = yield from source.short(_BRACE, NAME_CHARACTERS)
    calls.start(name)
    reader = _Reader(calls)
    yield from reader.items(calls.arguments, "}", JSON_DEPTH)
    calls.finish()


class _Reader:
    def __init__(self, calls: CallWriter) -> None:
        self._source = calls.source
        self._quote = calls.format.quote
        self._quotes = Marks((self._quote,))

    def items(self, emit: Emit, closer: str, depth: int) -> Steps[None]:
        """Reads an object or a list, after its opening bracket."""
        if not depth:
            raise NotACall
        source = self._source
        emit("{" if closer == "}" else "[")
        is_first = True
        while (yield from source.spaces()) != closer:
            if not is_first:
                yield from source.expect(",")
                emit(", ")
            is_first = False
            yield from source.spaces()
            if closer == "}":
                yield from self._key(emit)
            yield from self._value(emit, depth)
        source.take(source.at + 1)
        emit(closer)

    def _key(self, emit: Emit) -> Steps[None]:
        source = self._source
        if (yield from source.has((self._quote,))):
            emit('"')
            yield from self._text(emit)
            emit('": ')
            yield from source.expect(":")
        elif (yield from source.peek()) == '"':
            yield from read_string(source, emit)
            emit(": ")
            yield from source.expect(":")
        else:
            key, _ = yield from source.short(_COLON, NAME_CHARACTERS)
            emit(f"{quoted(key.strip())}: ")

    def _value(self, emit: Emit, depth: int) -> Steps[None]:
        source = self._source
        char = yield from source.spaces()
        if (yield from source.has((self._quote,))):
            emit('"')
            yield from self._text(emit)
            emit('"')
        elif char in ("{", "["):
            source.take(source.at + 1)
            yield from self.items(emit, "}" if char == "{" else "]", depth - 1)
        elif char == '"':
            yield from read_string(source, emit)
        else:
            emit((yield from self._word()))

    def _text(self, emit: Emit) -> Steps[None]:
        """Reads a string up to its closing quote."""
        source = self._source
        while True:
            mark = yield from source.until(self._quotes, lambda text: emit(escaped(text)))
            if not mark:
                raise NotACall
            if (yield from source.is_next(_FOLLOWERS)):
                return
            emit(escaped(mark))

    def _word(self) -> Steps[str]:
        """Reads a number, a literal, or text without quotes. Takes no sign after it."""
        source = self._source
        scanned = source.at
        while True:
            end = min(
                (at for sign in _WORD_END if (at := source.text.find(sign, scanned)) >= 0),
                default=-1,
            )
            size = (end if end >= 0 else len(source.text)) - source.at
            if size > NAME_CHARACTERS:
                raise NotACall
            if end >= 0:
                break
            yield from source.need()
            scanned = source.at
        text = source.take(end).strip()
        if not text:
            raise NotACall
        return json_value(text, frozenset())
