"""Calls as JSON objects, alone or in a list: `{"name": "f", "arguments": {...}}`.

The keys may have other names, and stand in any order. The arguments may be a string of JSON. The
tool's name may be the only key.
"""

from collections.abc import Callable

from dynemo.answer.formats.call import CallWriter
from dynemo.answer.formats.json_text import read_short_string, read_string_text, read_value
from dynemo.answer.formats.source import NotACall, Source, Steps

_END = object()

_NESTED = "function"  #: the key of an object or a name in OpenAI's own form


def read_calls(calls: CallWriter, *, is_bare: bool = False) -> Steps[None]:
    """Reads an object or a list of objects. `is_bare`: no mark has said that they are calls."""
    source = calls.source
    is_list = (yield from source.spaces()) == "["
    if is_list:
        source.take(source.at + 1)
        if (yield from source.spaces()) == "]" and not is_bare:
            source.take(source.at + 1)
            calls.settle()
            return
    while True:
        yield from read_object(calls, is_bare=is_bare)
        separator = yield from source.has((",", ";", "]") if is_list else (";", ","))
        if not separator:
            yield from source.spaces()
            separator = yield from source.has((",", ";", "]") if is_list else (";", ","))
        if not is_list and not separator:
            return
        if not separator:
            raise NotACall
        if separator == "]":
            calls.settle()
            return
        yield from source.spaces()


def read_object(calls: CallWriter, *, is_bare: bool = False) -> Steps[None]:
    """Reads one call."""
    reader = _ObjectReader(calls)
    yield from reader.members(is_bare=is_bare)
    if not reader.name:
        raise NotACall
    if not calls.is_started:
        if is_bare and reader.held is None:
            raise NotACall
        calls.start(reader.name, reader.id)
        for text in reader.held or ["{}"]:
            calls.arguments(text)
    if reader.id is not None:
        calls.set_id(reader.id)
    calls.finish()


class _ObjectReader:
    """Reads one object, and keeps what it knows of the call."""

    def __init__(self, calls: CallWriter) -> None:
        self._calls = calls
        self._source: Source = calls.source
        self._format = calls.format
        self.name = ""
        self.id: str | None = None
        self.held: list[str] | None = None  #: the arguments, while there is no name

    def members(self, *, is_bare: bool) -> Steps[None]:
        source = self._source
        yield from source.expect("{")
        if (yield from source.spaces()) == "}":
            raise NotACall
        while True:
            key = yield from read_short_string(source)
            yield from source.expect(":")
            yield from source.spaces()
            if is_bare and not self.name and not self._may_begin(key):
                raise NotACall
            yield from self._member(key)
            yield from source.spaces()
            if (yield from source.expect(",", "}")) == "}":
                return
            yield from source.spaces()

    def _may_begin(self, key: str) -> bool:
        format = self._format
        return key in ("type", _NESTED) or key in format.name_keys or key in format.id_keys

    def _member(self, key: str) -> Steps[None]:
        source, format = self._source, self._format
        has_text = (yield from source.peek()) == '"'
        if format.is_name_key and not self.name:
            self.name = self._calls.named(key)
            yield from self._arguments()
        elif (key == _NESTED or key in format.name_keys) and has_text and not self.name:
            self.name = self._calls.named((yield from read_short_string(source)))
        elif key == _NESTED and not self.name and (yield from source.peek()) == "{":
            yield from self.members(is_bare=False)
        elif key in format.argument_keys and self.held is None and not self._calls.is_started:
            yield from self._arguments()
        elif key in format.id_keys and has_text:
            self.id = yield from read_short_string(source)
        else:
            yield from read_value(source, _drop)

    def _arguments(self) -> Steps[None]:
        emit: Callable[[str], None]
        if self.name:
            self._calls.start(self.name, self.id)
            emit = self._calls.arguments
        else:
            self.held = []
            emit = self.held.append
        yield from read_arguments(self._source, emit)


def read_arguments(source: Source, emit: Callable[[str], None]) -> Steps[None]:
    """Reads an object, or a string that holds the JSON of one, or null for an empty object."""
    char = yield from source.peek()
    if char == "{":
        yield from read_value(source, emit)
    elif char == '"':
        yield from _read_nested(source, emit)
    elif (yield from source.has(("null",))):
        emit("{}")
    else:
        raise NotACall


def _read_nested(source: Source, emit: Callable[[str], None]) -> Steps[None]:
    """Reads a string of JSON. Everything it says is given out, also if it is not JSON."""
    inner = Source()
    steps = _read_whole(inner, emit)
    outer = read_string_text(source, inner.feed)
    is_valid = True
    while not inner.is_over:
        try:
            inner.is_over = next(outer, _END) is _END
            if is_valid:
                next(steps, None)
        except NotACall:
            if not inner.is_over and source.is_over:
                emit(inner.take(len(inner.text)))
                raise
            is_valid = False
        if not is_valid:
            emit(inner.take(len(inner.text)))
        if not inner.is_over:
            yield
    if not is_valid:
        raise NotACall


def _read_whole(source: Source, emit: Callable[[str], None]) -> Steps[None]:
    if (yield from source.spaces()) == "":
        emit("{}")
        return
    if (yield from source.peek()) != "{":
        raise NotACall
    yield from read_value(source, emit)
    if (yield from source.spaces()) != "":
        raise NotACall


def _drop(text: str) -> None:
    pass
