"""Reads the calls after a mark, in the syntax of a format."""

from dynemo.answer.formats.call import CallWriter
from dynemo.answer.formats.format import ToolFormat
from dynemo.answer.formats.source import Emit, Marks, NotACall, Source, Steps
from dynemo.answer.formats.syntax import braces, json_calls, named, pairs, python, xml

#: Characters that an inner reader gets at once, because it may give them back.
_SLICE = 256

#: Beginnings of marks that are control tokens, which no text is about.
_CONTROL = ("<|", "<｜")


def read_calls(calls: CallWriter, mark: str, *, is_bare: bool) -> Steps[None]:
    """Reads the calls after a mark; an empty mark stands for a call without one."""
    source, format = calls.source, calls.format
    if mark in format.sections:
        mark = yield from _first_call(calls, mark)
        if not mark:
            return
    elif format.is_open and not mark:
        yield from source.has(format.opens)  # the prompt may not end with it
    match format.syntax:
        case "json":
            yield from json_calls.read_calls(calls, is_bare=is_bare)
        case "named":
            yield from named.read_calls(calls)
        case "xml":
            yield from xml.read_calls(calls, is_open=mark == format.call_tag.open)
        case "pairs":
            yield from pairs.read_calls(calls)
        case "python":
            yield from python.read_calls(calls, is_bare=is_bare)
        case "braces":
            yield from braces.read_calls(calls)
        case "harmony":
            raise NotACall


def _first_call(calls: CallWriter, section: str) -> Steps[str]:
    """Returns the mark of the first call of a section; empty if the section has no call."""
    source, format = calls.source, calls.format
    starts = tuple(start for start in (*format.opens, format.call_tag.open) if start)
    yield from source.spaces()
    mark = yield from source.has((*starts, *format.closes))
    if mark and mark not in format.closes:
        return mark
    if not mark or not section.startswith(_CONTROL):
        raise NotACall  # the text may be about the marks
    calls.settle()
    return ""


def only_calls(calls: CallWriter, mark: str) -> Steps[None]:
    """Reads calls after a mark, up to the end. Raises NotACall for other text."""
    source, format = calls.source, calls.format
    starts = start_marks(format)
    closes = tuple(text for text in (*format.closes, format.call_tag.close) if text)
    while mark:
        if mark in starts:
            yield from read_calls(calls, mark, is_bare=False)
        if not (yield from source.spaces()):
            return
        mark = yield from source.has((*starts, *closes))
    raise NotACall


def pass_on(
    source: Source, inner: Source, ends: Marks, steps: Steps[None], emit: Emit
) -> Steps[None]:
    """Passes text on to the source of an inner reader, up to a mark or the end of the text.

    The inner source is over only if no mark came.
    """
    while True:
        window = source.text[source.at : source.at + _SLICE]
        end, mark = ends.find(window, 0, is_over=source.is_over)
        if end:
            text = source.take(source.at + end)
            emit(text)
            inner.feed(text)
            next(steps)
        elif mark:
            return
        elif source.is_over:
            break
        else:
            yield
    text = source.rest()
    emit(text)
    inner.feed(text)
    inner.is_over = True
    for _ in steps:
        pass


def start_marks(tools: ToolFormat) -> tuple[str, ...]:
    """Returns the marks that start a call."""
    marks = (*tools.sections, *tools.opens, tools.call_tag.open)
    return tuple(mark for mark in marks if mark)
