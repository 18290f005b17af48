"""Calls of Python functions with keyword arguments: `[f(a="x", b=1), g()]`."""

import re

from dynemo.answer.formats.call import CallWriter
from dynemo.answer.formats.json_text import quoted
from dynemo.answer.formats.python_text import read_literal
from dynemo.answer.formats.source import NotACall, Source, Steps
from dynemo.answer.formats.syntax import json_calls
from dynemo.limits import NAME_CHARACTERS

_NAME = re.compile(r"[\w.\-]*")


def read_calls(calls: CallWriter, *, is_bare: bool = False) -> Steps[None]:
    """Reads one call, or a list of calls in brackets or on lines of their own."""
    source = calls.source
    char = yield from source.spaces()
    if char == "{":
        yield from json_calls.read_calls(calls, is_bare=is_bare)
        return
    is_list = char == "["
    if is_list:
        source.take(source.at + 1)
        char = yield from source.spaces()
        if char == "]" and not is_bare:
            source.take(source.at + 1)
            calls.settle()
            return
        if char == "{":
            yield from _objects(calls, is_bare=is_bare)
            return
    while True:
        yield from _call(calls)
        char = yield from source.spaces()
        if is_list and char == "]":
            source.take(source.at + 1)
            calls.settle()
            return
        if char in (",", ";"):
            source.take(source.at + 1)
            yield from source.spaces()
        elif is_list:
            raise NotACall
        elif not (char.isidentifier() and not is_bare):
            return


def _objects(calls: CallWriter, *, is_bare: bool) -> Steps[None]:
    """Reads the objects of a list whose bracket has been read."""
    while True:
        yield from json_calls.read_object(calls, is_bare=is_bare)
        if (yield from calls.source.expect(",", "]")) == "]":
            calls.settle()
            return
        yield from calls.source.spaces()


def _call(calls: CallWriter) -> Steps[None]:
    source = calls.source
    name = yield from _identifier(source, "(")
    calls.start(name)
    names: set[str] = set()
    while (yield from source.spaces()) != ")":
        if names:
            yield from source.expect(",")
            if (yield from source.spaces()) == ")":
                break
        key = yield from _identifier(source, "=")
        if key in names:
            raise NotACall
        calls.arguments(f"{', ' if names else '{'}{quoted(key)}: ")
        names.add(key)
        yield from read_literal(source, calls.arguments)
    source.take(source.at + 1)
    calls.arguments("}" if names else "{}")
    calls.finish()


def _identifier(source: Source, end: str) -> Steps[str]:
    """Reads a name and the sign after it."""
    while True:
        match = _NAME.match(source.text, source.at)
        stop = match.end() if match else source.at
        if stop - source.at > NAME_CHARACTERS:
            raise NotACall
        if stop < len(source.text):
            break
        yield from source.need()
    name = source.take(stop)
    if not name:
        raise NotACall
    yield from source.expect(end)
    return name
