"""Infers how a model calls tools from how its template renders a call.

The name, the keys and the values of the rendered call are known (`probe.py`), so the text between
them is the format's own. Each function here tries one syntax. The result is only a guess, which
`choose.py` proves.
"""

import re
from typing import Any

from msgspec import DecodeError

from dynemo.answer.formats.format import Tag, ToolFormat
from dynemo.answer.formats.json_text import read_value
from dynemo.answer.formats.probe import ARGUMENTS, NAME, CallProbe
from dynemo.answer.formats.source import NotACall, Source
from dynemo.foreign import decode_any_json

_INFERRED = "inferred"

#: The last mark of a text: in brackets of some kind, or else a word.
_LAST_MARK = re.compile(r"(?:<[^<>]+>|\[[^\[\]]+\]|\S+)\Z")
_FIRST_MARK = re.compile(r"\A(?:<[^<>]+>|\[[^\[\]]+\]|[^\s<\[]+)")
_TAG = re.compile(r"<[^<>]+>")


def infer_tools(probe: CallProbe) -> ToolFormat | None:
    """Returns a format that the caller must prove, or None."""
    text = _without_end(probe.one, probe.plain)
    if NAME not in text:
        return None
    return _objects(text) or _named(text, probe.two) or _python(text) or _tags(text)


def _without_end(text: str, plain: str) -> str:
    """Removes what ends each answer, which an answer without calls shows."""
    end = plain.partition(NAME)[2].strip()
    return text.rstrip().removesuffix(end) if end else text


def _objects(text: str) -> ToolFormat | None:
    """An object with the name and the arguments, or a list of such objects."""
    found = _json_around(text, text.index(NAME))
    if found is None:
        return None
    start, end, value = found
    call = value[0] if isinstance(value, list) and value else value
    if isinstance(call, dict) and isinstance(call.get("function"), dict):
        call = call["function"]
    if not isinstance(call, dict):
        return None
    names = tuple(key for key, each in call.items() if each == NAME)
    arguments = tuple(key for key, each in call.items() if _is_arguments(each))
    if not arguments:
        return None
    open, close = _last(text[:start]), _first(text[end:])
    return ToolFormat(
        _INFERRED,
        "json",
        opens=(open,) if open else (),
        closes=(close,) if close else (),
        bare="" if open else text[start],
        name_keys=names or ("name",),
        argument_keys=arguments,
        is_name_key=not names and NAME in call,
    )


def _is_arguments(value: Any) -> bool:
    if isinstance(value, str) and value.startswith("{"):
        try:
            value = decode_any_json(value)
        except DecodeError:
            return False
    return bool(value == ARGUMENTS)


def _named(text: str, two: str) -> ToolFormat | None:
    """The name, and then the arguments as an object. Two calls show which mark is a section's."""
    at = text.index(NAME) + len(NAME)
    start = text.find("{", at)
    end = _end_of_json(text, start) if start >= 0 else 0
    if not end or not _is_arguments(text[start:end]):
        return None
    open, section = _last(text[: at - len(NAME)]), ""
    gap = two[_end_of_json(two, two.find("{")) : two.rfind(NAME)].rstrip()
    ends = (open[at:] for at in range(len(open)) if open[at] in "<[")
    shared = next((end for end in ends if gap.endswith(end)), "")
    if shared and shared != open:
        open, section = shared, open.removesuffix(shared)
    closes = tuple(_TAG.findall(text[end:])) or tuple(text[end:].split()[:1])
    between = text[at:start]
    separator = between.strip() or between
    if not open or not separator:
        return None
    return ToolFormat(
        _INFERRED,
        "named",
        opens=(open,),
        sections=(section,) if section else (),
        closes=closes,
        separators=(separator,),
    )


def _python(text: str) -> ToolFormat | None:
    """A call of a Python function."""
    before, _, after = text.partition(NAME + "(")
    if not after or ")" not in after:
        return None
    open = _last(before.rstrip().removesuffix("["))
    close = _first(after[after.rindex(")") + 1 :].lstrip().removeprefix("]"))
    return ToolFormat(
        _INFERRED,
        "python",
        opens=(open,) if open else (),
        closes=(close,) if close else (),
        bare="" if open else "[",
    )


def _tags(text: str) -> ToolFormat | None:
    """Tags around the name, the keys and the values."""
    keys = sorted(ARGUMENTS, key=text.find)
    known = [NAME, *(part for key in keys for part in (key, str(ARGUMENTS[key])))]
    gaps: list[str] = []
    rest = text
    for part in known:
        gap, found, rest = rest.partition(part)
        if not found:
            return None
        gaps.append(gap)
    before, to_key, to_value, between, _ = gaps
    open = before[before.rfind("<") :]
    key_open = to_key[to_key.rfind("<") :]
    if "<" not in before or "<" not in to_key or not between.endswith(key_open):
        return None
    value_close = between.removesuffix(key_open).strip()
    tail = _TAG.findall(rest.replace(value_close, "", 1))
    middle = _TAG.findall(to_value)
    if len(middle) > 1 and tail:
        return ToolFormat(
            _INFERRED,
            "pairs",
            opens=(open,),
            closes=(tail[0],),
            key_tag=Tag(open=key_open, close=middle[0]),
            value_tag=Tag(open=middle[1], close=value_close),
        )
    if not tail or not value_close:
        return None
    section = _last(before[: before.rfind("<")])
    call_end = to_key[: to_key.rfind("<")].strip()
    name_end, end = _split(to_value.strip("\n"))
    call_name_end, call_end = _split(call_end)
    return ToolFormat(
        _INFERRED,
        "xml",
        sections=(section,) if section else (),
        closes=tuple(tail[1:2]),
        call_tag=Tag(open, call_name_end, call_end, tail[0]),
        value_tag=Tag(key_open, name_end, end, value_close),
        has_lines=to_value.endswith("\n"),
    )


def _split(text: str) -> tuple[str, str]:
    """Splits the end of an opening tag: the end of the name, and the end of the tag."""
    return ('"', ">") if text.startswith('"') else (text, "")


def _last(text: str) -> str:
    found = _LAST_MARK.search(text.strip())
    return found[0] if found else ""


def _first(text: str) -> str:
    found = _FIRST_MARK.search(text.strip())
    return found[0] if found else ""


def _json_around(text: str, at: int) -> tuple[int, int, Any] | None:
    """Returns the outermost JSON object or list around a place: its start, end and value."""
    for match in re.finditer(r"[\[{]", text[:at]):
        end = _end_of_json(text, match.start())
        if end > at:
            try:
                return match.start(), end, decode_any_json(text[match.start() : end])
            except DecodeError:
                continue
    return None


def _end_of_json(text: str, start: int) -> int:
    """Returns where the JSON value from `start` on ends, or 0."""
    source = Source()
    source.feed(text[start:])
    source.is_over = True
    try:
        for _ in read_value(source, _drop):
            pass
    except NotACall:
        return 0
    return start + source.at


def _drop(text: str) -> None:
    pass
