"""Calls as tags: `<function=f><parameter=a>1</parameter></function>`, and its relatives.

Values have no quotes. The tool's schema gives their types, or an attribute of the tag does.
"""

import re
from html import unescape

from dynemo.answer.formats.call import CallWriter
from dynemo.answer.formats.format import Tag, ToolFormat
from dynemo.answer.formats.schema import Types
from dynemo.answer.formats.source import Marks, Steps
from dynemo.answer.formats.syntax.values import ValueEnds, ValuesWriter
from dynemo.limits import NAME_CHARACTERS

_ATTRIBUTE = re.compile(r'\b(string|type)="([^"]*)"')


def read_calls(calls: CallWriter, *, is_open: bool) -> Steps[None]:
    """Reads one call. `is_open`: its opening tag was read up to the name."""
    source, format = calls.source, calls.format
    call, value = format.call_tag, format.value_tag
    if not is_open:
        yield from source.expect(call.open)
    name, attributes = yield from _tag(calls, call)
    calls.start(name)
    values = ValuesWriter(calls, calls.tools[calls.named(name)], _ends(format))
    mark = call.close if attributes.endswith("/") else ""
    while (mark or (yield from source.expect(value.open, call.close))) in (
        value.open,
        "\n" + value.open,
    ):
        name, attributes = yield from _tag(calls, value)
        if format.has_lines:
            yield from source.has(("\n",))
        mark = yield from values.value(name, _declared(attributes, values.types(name)))
    values.finish()


def _tag(calls: CallWriter, tag: Tag) -> Steps[tuple[str, str]]:
    """Reads the rest of an opening tag. Returns the name and the attributes."""
    source = calls.source
    name, _ = yield from source.short(Marks((tag.name_end,)), NAME_CHARACTERS)
    if not tag.end:
        return name, ""
    attributes, _ = yield from source.short(Marks((tag.end,)), NAME_CHARACTERS)
    return unescape(name), attributes


def _ends(format: ToolFormat) -> ValueEnds:
    call, value = format.call_tag, format.value_tag
    closes = ("\n" + value.close, value.close) if format.has_lines else (value.close,)
    return ValueEnds(
        closes=closes,
        followers=(value.open, call.close),
        next_value="\n" + value.open,
        name_end=value.name_end,
        call_close="\n" + call.close,
        call_followers=(*format.closes, call.open),
    )


def _declared(attributes: str, types: Types) -> Types:
    """Returns the types that a tag declares, or else those of the schema."""
    for name, value in _ATTRIBUTE.findall(attributes):
        is_text = value == ("true" if name == "string" else "string")
        return frozenset({"string"}) if is_text else types - {"string"}
    return types
