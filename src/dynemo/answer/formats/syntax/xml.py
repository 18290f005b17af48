"""Calls as tags: `<function=f><parameter=a>1</parameter></function>`, and its relatives.

Values have no quotes. The tool's schema gives their types, or an attribute of the tag does.
"""

import re

from dynemo.answer.formats.call import CallWriter
from dynemo.answer.formats.format import ToolFormat
from dynemo.answer.formats.schema import Types
from dynemo.answer.formats.source import Marks, Steps
from dynemo.answer.formats.syntax.values import Values
from dynemo.limits import NAME_CHARACTERS

_ATTRIBUTE = re.compile(r'\b(string|type)="([^"]*)"')


def read_calls(calls: CallWriter, *, is_open: bool) -> Steps[None]:
    """Reads one call. `is_open`: its opening tag was read up to the name."""
    source, format = calls.source, calls.format
    call, value = format.call_tag, format.value_tag
    if not is_open:
        yield from source.expect(call.open)
    name, _ = yield from source.short(Marks((call.name_end,)), NAME_CHARACTERS)
    if call.end:
        yield from source.short(Marks((call.end,)), NAME_CHARACTERS)
    calls.start(name)
    values = Values(calls, calls.tools[calls.named(name)], *_ends(format))
    while (yield from source.expect(value.open, call.close)) == value.open:
        key, _ = yield from source.short(Marks((value.name_end,)), NAME_CHARACTERS)
        types = values.types(key)
        if value.end:
            attributes, _ = yield from source.short(Marks((value.end,)), NAME_CHARACTERS)
            types = _declared(attributes, types)
        if format.has_lines:
            yield from source.has(("\n",))
        yield from values.value(key, types)
    values.finish()


def _ends(format: ToolFormat) -> tuple[Marks, tuple[str, ...]]:
    close = format.value_tag.close
    marks = Marks(("\n" + close, close)) if format.has_lines else Marks((close,))
    return marks, (format.value_tag.open, format.call_tag.close)


def _declared(attributes: str, types: Types) -> Types:
    """Returns the types that a tag declares, or else those of the schema."""
    for name, value in _ATTRIBUTE.findall(attributes):
        if name == "string":
            return frozenset({"string"}) if value == "true" else types - {"string"}
        return frozenset({value})
    return types
