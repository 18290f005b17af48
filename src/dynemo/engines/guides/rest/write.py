"""Writes the places in a schema as a grammar for llguidance."""

from collections.abc import Iterable
from typing import Any

from dynemo.engines.guides.lark import compact_schema, lark_regex
from dynemo.engines.guides.rest.errors import CannotContinue
from dynemo.engines.guides.rest.machine import (
    Element,
    Items,
    Lexeme,
    Machine,
    Members,
    Place,
    Unclear,
    Value,
    as_json,
)
from dynemo.engines.guides.rest.regex import is_nullable, literal, source
from dynemo.limits import GUIDE_BYTES

_ROOT = "~root"


class RestWriter:
    """Collects the rules of one grammar."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._rules: dict[str, str] = {}

    def write(self, places: Iterable[Place]) -> str:
        """Raises CannotContinue if the guide is not known exactly at these places."""
        places = [*places]
        if any(isinstance(element, Unclear) for elements, _ in places for element in elements):
            raise CannotContinue("the answer ends within a value whose schema cannot be advanced")
        if len({unclear for _, unclear in places}) > 1:
            raise CannotContinue("the answer fits several of its choices, one not for certain")
        options = self._options(reversed(elements) for elements, _ in places)
        if not options:
            raise CannotContinue("no answer can continue so")
        lines = [f"start: {options}"]
        lines += [f"{name}: {body}" for name, body in self._rules.items() if body]
        text = "\n".join(lines)
        if len(text.encode()) > GUIDE_BYTES:
            raise CannotContinue("its rest is too long")
        return text

    def _options(self, sequences: Iterable[Iterable[Element]]) -> str:
        """Returns what a rule may be, or "" if nothing is possible."""
        written = [[*map(self._written, sequence)] for sequence in sequences]
        possible = {" ".join(parts) or '""' for parts in written if "" not in parts}
        return " | ".join(sorted(possible))

    def _written(self, element: Element) -> str:
        """Returns "" for an element that no text can be."""
        match element:
            case str():
                return lark_regex_of(element)
            case Lexeme():
                return self._lexeme(element)
            case Value(number):
                return self._rule(f"v{number}", element)
            case Members(number, index, has_some):
                return self._rule(f"m{number}_{index}_{int(has_some)}", element)
            case Items(number, count):
                return self._rule(f"i{number}_{count}", element)
        raise AssertionError(element)

    def _lexeme(self, lexeme: Lexeme) -> str:
        text = lark_regex(source(lexeme.nodes))
        if lexeme.words:
            words = lark_regex(source(map(literal, lexeme.words)))
            name = f"T{len(self._rules)}"
            self._rules[name] = f"{text} & ~{words}"
            text = name
        is_optional = any(map(is_nullable, lexeme.nodes)) and "" not in lexeme.words
        return f"{text}?" if is_optional else text

    def _rule(self, name: str, element: Value | Members | Items) -> str:
        if name in self._rules:
            return name if self._rules[name] else ""
        self._rules[name] = name  # it may refer to itself
        match element:
            case Value(number) if self._machine.schema(number) is False:
                body = ""
            case Value(number):
                body = f"%json {compact_schema(as_json(self._standalone(number)))}"
            case Items(number, count) if self._is_uniform(number, count):
                body = self._uniform(number, count)
            case _:
                body = self._options(self._machine.opened(element))
        self._rules[name] = body
        return name if body else ""

    def _is_uniform(self, number: int, count: int) -> bool:
        """Whether all further items have the same schema."""
        return count > 0 and count >= len(self._machine.schema(number).get("prefixItems", []))

    def _uniform(self, number: int, count: int) -> str:
        schema = self._machine.schema(number)
        item = self._machine.item(number, count)
        least = max(schema.get("minItems", 0) - count, 0)
        most = schema.get("maxItems")
        if item is False or (most is not None and most <= count):
            return lark_regex_of("]")
        value = self._written(Value(self._machine.number(item)))
        bounds = f"{{{least},{'' if most is None else most - count}}}"
        return f'("," {value}){bounds} "]"'

    def _standalone(self, number: int) -> Any:
        """Returns a schema with what its references lead to."""
        schema = self._machine.schema(number)
        if schema is self._machine.root or not _has_reference(schema):
            return schema
        return {**_moved(schema), "$defs": {_ROOT: _moved(self._machine.root)}}


def lark_regex_of(text: str) -> str:
    """The terminal of one text."""
    return lark_regex(source([literal(text)]))


def _has_reference(schema: Any) -> bool:
    left = [schema]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            if "$ref" in part:
                return True
            left += part.values()
        elif isinstance(part, list):
            left += part
    return False


def _moved(part: Any) -> Any:
    """A part of the schema, with references into the copy of the root below `$defs`."""
    if isinstance(part, list):
        return [_moved(item) for item in part]
    if not isinstance(part, dict):
        return part
    moved = {key: _moved(value) for key, value in part.items()}
    if isinstance(reference := part.get("$ref"), str):
        moved["$ref"] = f"#/$defs/~0root{reference.removeprefix('#')}"
    return moved
