"""Calls as a name and the JSON of the arguments: `f[ARGS]{...}`, and its relatives."""

import re

from dynemo.answer.formats.call import CallWriter
from dynemo.answer.formats.json_text import read_value
from dynemo.answer.formats.source import Marks, NotACall, Steps
from dynemo.answer.formats.syntax import json_calls
from dynemo.limits import NAME_CHARACTERS

_INDEX = re.compile(r":[0-9]+\Z")


def read_calls(calls: CallWriter) -> Steps[None]:
    """Reads one call. A list of objects in its place is read as such."""
    source, format = calls.source, calls.format
    char = yield from source.spaces()
    if char in ("[", "{") and not format.is_id_first:
        yield from json_calls.read_calls(calls)
        return
    name, id = yield from _name(calls)
    if name and name == format.content_name and name not in calls.tools:
        calls.settle()
        return
    calls.start(name, id)
    char = yield from source.spaces()
    if char == "{":
        yield from read_value(source, calls.arguments)
    elif not format.fence and (yield from source.is_next(format.closes)):
        calls.arguments("{}")
    else:
        raise NotACall
    calls.finish()


def _name(calls: CallWriter) -> Steps[tuple[str, str | None]]:
    """Reads the text before the arguments. Returns the tool's name, and the call's id."""
    source, format = calls.source, calls.format
    ends = Marks((*format.separators, format.id_mark))
    text, mark = yield from _up_to(calls, ends)
    id: str | None = None
    if mark == format.id_mark and mark:
        other, mark = yield from _up_to(calls, ends)
        text, id = (other, text.strip()) if format.is_id_first else (text, other.strip())
    if format.fence and mark and (yield from source.spaces()) != "{":
        text, _ = yield from source.short(Marks(("\n", format.fence)), NAME_CHARACTERS)
        yield from source.spaces()
        yield from source.has((format.fence,))
    name = text.strip()
    if format.has_index:
        id = name
        if name not in calls.tools:
            name = _INDEX.sub("", name)
    return name, id


def _up_to(calls: CallWriter, ends: Marks) -> Steps[tuple[str, str]]:
    """Reads up to one of the marks. Where the arguments follow without one, it is empty."""
    source = calls.source
    parts: list[str] = []
    left = NAME_CHARACTERS
    while True:
        end, mark = ends.find(source.text, source.at, is_over=source.is_over)
        brace = source.text.find("{", source.at, end)
        if brace >= 0:
            end, mark = brace, "{"
        if end - source.at > left:
            source.take(source.at + left)
            raise NotACall
        left -= end - source.at
        parts.append(source.take(end))
        if mark:
            if mark != "{":
                source.take(end + len(mark))
            return "".join(parts), mark if mark != "{" else ""
        yield from source.need()
