"""Calls as pairs of tags: `f<arg_key>a</arg_key><arg_value>1</arg_value>`. The schema has types."""

from dynemo.answer.formats.call import CallWriter
from dynemo.answer.formats.source import Marks, Steps
from dynemo.answer.formats.syntax.values import ValueEnds, ValuesWriter
from dynemo.limits import NAME_CHARACTERS


def read_calls(calls: CallWriter) -> Steps[None]:
    """Reads one call, with its closing mark."""
    source, format = calls.source, calls.format
    key_tag, value_tag, close = format.key_tag, format.value_tag, format.closes[0]
    name, mark = yield from source.short(Marks((key_tag.open, close)), NAME_CHARACTERS)
    calls.start(name)
    ends = ValueEnds(
        closes=(value_tag.close,),
        followers=(key_tag.open, close),
        next_value=key_tag.open,
        name_end=key_tag.close,
        call_close=close,
        call_followers=format.opens,
    )
    values = ValuesWriter(calls, calls.tools[calls.named(name)], ends)
    while mark == key_tag.open:
        key, _ = yield from source.short(Marks((key_tag.close,)), NAME_CHARACTERS)
        yield from source.expect(value_tag.open)
        key = key.strip()
        mark = yield from values.value(key, values.types(key))
        mark = mark or (yield from source.expect(key_tag.open, close))
    values.finish()
