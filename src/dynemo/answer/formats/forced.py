"""Writes the grammar of an answer that must call a tool, in llguidance's dialect of Lark.

The grammar is made from the same data as the parser, so each text that it allows is read as calls.
The schemas of the tools bind the arguments.
"""

import re
from collections.abc import Mapping, Sequence
from json import dumps
from typing import Any

from dynemo.answer.formats.format import Format, ToolFormat
from dynemo.answer.formats.schema import is_only_text, parameters_of, types_of
from dynemo.answer.formats.write import opening_tag
from dynemo.messages.ask import Tool
from dynemo.messages.request import Guide

#: How JSON looks in what models have learned, and without other white space.
_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_ANY_OBJECT = {"type": "object"}


def forced_call_guide(
    format: Format,
    tools: Sequence[Tool],
    *,
    is_parallel: bool = True,
    control_ids: Mapping[str, int] | None = None,
) -> Guide | None:
    """Returns a guide of the kind `lark` for an answer, or the rest of one, that calls tools.

    It allows one call of these tools, or several if `is_parallel`. `control_ids` are the marks that
    are control tokens, with their ids: in an answer these are tokens and not text. None if the
    format has no call that can be forced, or if there are no tools.
    """
    if format.tools is None or not tools:
        return None
    writer = _Writer(format.tools, control_ids or {})
    rules = writer.rules(tools, is_parallel=is_parallel)
    return Guide("lark", "\n".join(rules))


class _Writer:
    def __init__(self, format: ToolFormat, control_ids: Mapping[str, int]) -> None:
        self._format = format
        self._control_ids = control_ids
        marks = sorted(control_ids, key=len, reverse=True)
        self._controls = re.compile("|".join(map(re.escape, marks))) if marks else None

    def rules(self, tools: Sequence[Tool], *, is_parallel: bool) -> list[str]:
        format = self._format
        rules: list[str] = []
        for number, tool in enumerate(tools):
            rules += self._call(f"call_{number}", tool)
        rules.append("call: " + " | ".join(f"call_{number}" for number in range(len(tools))))
        before, joint, after = self._around(format)
        more = f" ({self._text(joint)} call)*" if is_parallel and joint is not None else ""
        start = f"start: {self._text(before)} call{more} {self._text(after)}"
        return [start, *rules]

    def _around(self, format: ToolFormat) -> tuple[str, str | None, str]:
        """Returns the text before the calls, between two calls, and after them.

        No text between two calls: an answer holds only one.
        """
        section, close = "".join(format.sections[:1]), "".join(format.closes[-1:])
        match format.syntax:
            case "json" if format.is_list or format.is_name_key:
                open, end = _lines(format)
                return f"{open}[", ", ", f"]{end}"
            case "json":
                open, end = _lines(format)
                joint = "; " if not open else end + format.joint + open
                return open, joint if open or format.opens else None, end
            case "python":
                return "".join(format.opens[:1]) + "[", ", ", "]" + "".join(format.closes[:1])
            case "xml" if format.wraps_each:
                return section + "\n", f"{close}\n{section}\n", close
            case "xml":
                opens = "".join(format.opens[:1])
                end = format.closes[0] if len(format.closes) > 1 else ""
                joint = format.joint
                return section + joint + opens, joint + end + opens, joint + end + close
            case "named" if section:
                return section, format.joint, format.closes[1]
            case "harmony":
                return "", None, ""
            case _:
                return "", format.joint, ""

    def _call(self, name: str, tool: Tool) -> list[str]:
        """Returns the rules of one call of a tool."""
        format = self._format
        match format.syntax:
            case "json":
                if format.is_name_key:
                    return [self._rule(name, f"{{{dumps(tool.name)}: ", _schema(tool), "}")]
                start = f"{{{dumps(format.name_keys[0])}: {dumps(tool.name)}, "
                start += f"{dumps(format.argument_keys[0])}: "
                return [self._rule(name, start, _schema(tool), "}")]
            case "named":
                open = "" if format.is_open else "".join(format.opens[:1])
                return [f"{name}: {self._text(open)} {self._named(tool)}"]
            case "harmony":
                header = f"<|channel|>commentary to=functions.{tool.name} <|constrain|>json"
                return [self._rule(name, header + "<|message|>", _schema(tool), "")]
            case "xml":
                return self._xml(name, tool)
            case "pairs":
                return self._pairs(name, tool)
            case "python":
                return self._python(name, tool)
            case "braces":
                return self._braces(name, tool)

    def _named(self, tool: Tool) -> str:
        format = self._format
        separator = "".join(format.separators[:1])
        arguments, close = _schema(tool), ""
        if format.sections or (format.closes and not format.is_open):
            close = format.closes[0]
        if format.fence:
            start, close = f"function{separator}{tool.name}\n{format.fence}\n", f"\n```{close}"
            return f"{self._text(start)} {arguments} {self._text(close)}"
        if format.has_index:
            start = f"{''.join(format.prefixes[:1])}{tool.name}:"
            return (
                f"{self._text(start)} /[0-9]{{1,2}}/ {self._text(separator)} {arguments} "
                f"{self._text(close)}"
            )
        if format.is_id_first:
            start = f"{self._text(format.id_mark + tool.name + separator)} {arguments}"
            return f"/[a-zA-Z0-9]{{1,16}}/ {start} {self._text(close)}"
        return f"{self._text(tool.name + separator)} {arguments} {self._text(close)}"

    def _xml(self, name: str, tool: Tool) -> list[str]:
        format = self._format
        call, line = format.call_tag, format.joint
        start = opening_tag(call, tool.name) + line
        values = self._values(name, tool, self._xml_value)
        end = self._text(call.close)
        return [f"{name}: {self._text(start)} {values.sequence} {end}", *values.rules]

    def _xml_value(self, rule: str, tool: Tool, key: str) -> list[str]:
        format = self._format
        tag, line = format.value_tag, "\n" if format.has_lines else ""
        is_text = is_only_text(types_of(tool, key))
        kind = "string" if is_text else min(types_of(tool, key), default="object")
        start = opening_tag(tag, key, kind) + line
        return self._value(rule, start, tool, key, line + tag.close + format.joint)

    def _pairs(self, name: str, tool: Tool) -> list[str]:
        format = self._format
        values = self._values(name, tool, self._pair)
        start, end = self._text(format.opens[0] + tool.name + "\n"), self._text(format.closes[0])
        return [f"{name}: {start} {values.sequence} {end}", *values.rules]

    def _pair(self, rule: str, tool: Tool, key: str) -> list[str]:
        key_tag, value_tag = self._format.key_tag, self._format.value_tag
        start = f"{key_tag.open}{key}{key_tag.close}\n{value_tag.open}"
        return self._value(rule, start, tool, key, value_tag.close + "\n")

    def _python(self, name: str, tool: Tool) -> list[str]:
        values = self._values(name, tool, self._keyword, ", ")
        return [f'{name}: {self._text(tool.name + "(")} {values.sequence} ")"', *values.rules]

    def _keyword(self, rule: str, tool: Tool, key: str) -> list[str]:
        return [self._rule(rule, f"{key}=", _json(_property(tool, key), tool), "")]

    def _braces(self, name: str, tool: Tool) -> list[str]:
        format = self._format
        values = self._values(name, tool, self._entry, ",")
        start = self._text(f"{format.opens[0]}{tool.name}{{")
        end = self._text("}" + format.closes[0])
        return [f"{name}: {start} {values.sequence} {end}", *values.rules]

    def _entry(self, rule: str, tool: Tool, key: str) -> list[str]:
        if is_only_text(types_of(tool, key)):
            quote = self._format.quote
            return self._value(rule, f"{key}:{quote}", tool, key, quote)
        return self._value(rule, f"{key}:", tool, key, "")

    def _value(self, rule: str, start: str, tool: Tool, key: str, end: str) -> list[str]:
        """Returns the rules of one value: text up to its end, or JSON."""
        if not is_only_text(types_of(tool, key)):
            return [self._rule(rule, start, _json(_property(tool, key), tool), end)]
        texts = _property(tool, key).get("enum")
        if isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts):
            options = " | ".join(self._text(text) for text in texts)
            return [self._rule(rule, start, f"({options})", end)]
        if any(mark in end for mark in self._control_ids):
            return [self._rule(rule, start, r"/(.|\n)*/", end)]
        # A lazy terminal ends with the first closing mark, which is a part of it.
        stop = re.escape(end).replace("/", r"\/").replace("\\\n", r"\n").replace("\n", r"\n")
        text = f"{rule}_text"
        return [f"{rule}: {self._text(start)} {text}", rf"{text}[lazy]: /(.|\n)*{stop}/"]

    def _values(self, name: str, tool: Tool, write: Any, joint: str = "") -> "_Sequence":
        """Returns the values of a call in the order of the schema; the optional ones may lack."""
        schema = parameters_of(tool)
        properties = schema.get("properties")
        keys = list(properties) if isinstance(properties, dict) else []
        required = schema.get("required")
        needed = set(required) if isinstance(required, list) else set()
        ordered = [key for key in keys if key in needed] + [k for k in keys if k not in needed]
        rules: list[str] = []
        names = [f"{name}_{number}" for number in range(len(ordered))]
        for rule, key in zip(names, ordered, strict=True):
            rules += write(rule, tool, key)
        count = sum(key in needed for key in ordered)
        return _Sequence(_joined(names, count, self._text(joint) if joint else ""), rules)

    def _rule(self, name: str, start: str, body: str, end: str) -> str:
        return f"{name}: {self._text(start)} {body} {self._text(end)}"

    def _text(self, text: str) -> str:
        """Returns a text as literals, in which control tokens stand by their ids."""
        if self._controls is None:
            return dumps(text) if text else ""
        parts: list[str] = []
        at = 0
        for match in self._controls.finditer(text):
            if match.start() > at:
                parts.append(dumps(text[at : match.start()]))
            parts.append(f"<[{self._control_ids[match[0]]}]>")
            at = match.end()
        if at < len(text):
            parts.append(dumps(text[at:]))
        return " ".join(parts)


class _Sequence:
    def __init__(self, sequence: str, rules: list[str]) -> None:
        self.sequence = sequence
        self.rules = rules


def _joined(names: list[str], needed: int, joint: str) -> str:
    """Returns the needed rules, and then any of the others, with a text between two of them."""
    if not joint:
        return " ".join([*names[:needed], *(f"{name}?" for name in names[needed:])])
    if needed:
        others = "".join(f" ({joint} {name})?" for name in names[needed:])
        return f" {joint} ".join(names[:needed]) + others
    # Without a needed one, each may be the first.
    starts = [
        name + "".join(f" ({joint} {other})?" for other in names[number + 1 :])
        for number, name in enumerate(names)
    ]
    return f"({' | '.join(starts)})?" if starts else ""


def _lines(format: ToolFormat) -> tuple[str, str]:
    """Returns the text before and after the JSON of a call; none where the model needs none."""
    if format.bare:
        return "", ""
    line = "\n" if format.has_lines else ""
    open, close = "".join(format.opens[:1]), "".join(format.closes[:1])
    return open + (line if open else ""), (line + close) if close else ""


def _property(tool: Tool, key: str) -> dict[str, Any]:
    properties = parameters_of(tool).get("properties")
    found = properties.get(key) if isinstance(properties, dict) else None
    return found if isinstance(found, dict) else {}


def _schema(tool: Tool) -> str:
    return _json(parameters_of(tool) or _ANY_OBJECT, tool)


def _json(schema: dict[str, Any], tool: Tool) -> str:
    """Returns the terminal of JSON that fits a part of a tool's schema."""
    root = parameters_of(tool)
    shared = {key: root[key] for key in ("$defs", "definitions") if key in root}
    return f"%json {dumps({'x-guidance': _SPACING, **shared, **schema})}"
