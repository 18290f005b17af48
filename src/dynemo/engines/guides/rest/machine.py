"""Follows a JSON text through a schema, and gives the places in the schema that it may lead to.

A place is a stack of elements: what of the open token is left, then what of each open object and
array. An element opens only when a character needs it. So what is still to come stays a schema,
which llguidance follows by itself.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from msgspec import json

from dynemo.engines.guides.references import resolve
from dynemo.engines.guides.rest.errors import CannotContinue
from dynemo.engines.guides.rest.impossible import is_impossible
from dynemo.engines.guides.rest.numbers import NUMBER, Bound, integers, numbers
from dynemo.engines.guides.rest.regex import EMPTY, Node, after, is_nullable
from dynemo.engines.guides.rest.text import ANY_NAME, string
from dynemo.limits import GUIDE_PLACES

_TYPES = ("null", "boolean", "number", "string", "array", "object")
_REMARKS = frozenset({
    "$anchor", "$defs", "definitions", "$schema", "$id", "id", "$comment", "title", "description",
    "default", "readOnly", "writeOnly", "examples", "contentMediaType", "contentEncoding",
    "x-guidance", "deprecated",
})  # fmt: skip
#: The keywords that are followed here, by the type of the value that they describe.
_KEYWORDS = {
    "null": frozenset[str](),
    "boolean": frozenset[str](),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}),
    "string": frozenset({"minLength", "maxLength", "pattern", "format"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems"}),
    "object": frozenset({"properties", "required", "additionalProperties"}),
}
_ALL_KEYWORDS = frozenset().union(*_KEYWORDS.values())


@dataclass(frozen=True, slots=True)
class Lexeme:
    """A token of which a part may be written: any of the regexes, but none of the words."""

    nodes: frozenset[Node]
    words: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Value:
    """A value that has not begun."""

    number: int  #: of its schema


@dataclass(frozen=True, slots=True)
class Members:
    """The rest of an object."""

    number: int
    index: int  #: of the first property that may follow
    has_some: bool  #: so that a comma comes first


@dataclass(frozen=True, slots=True)
class Items:
    """The rest of an array."""

    number: int
    count: int  #: of its items so far


@dataclass(frozen=True, slots=True)
class Unclear:
    """The end of a value that was followed without all keywords of its schema."""

    number: int


#: A text stands for itself.
Element = str | Lexeme | Value | Members | Items | Unclear
#: The elements, with the next one last, and the schemas that were not followed exactly.
Place = tuple[tuple[Element, ...], frozenset[int]]


class Machine:
    """The schemas within one schema, by number: 0 is the root."""

    def __init__(self, root: Any) -> None:
        self.root = root
        self._schemas: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._failing: dict[int, bool] = {}
        self._any = self.number({})
        self.start = self.number(root)

    def number(self, schema: Any) -> int:
        number = self._numbers.get(id(schema))
        if number is None:
            number = self._numbers[id(schema)] = len(self._schemas)
            self._schemas.append(schema)
        return number

    def schema(self, number: int) -> Any:
        return self._schemas[number]

    def follow(self, text: str) -> frozenset[Place]:
        """Returns the places after a text. Raises CannotContinue."""
        places: frozenset[Place] = frozenset([((Value(self.start),), frozenset())])
        known: dict[tuple[frozenset[Place], str], frozenset[Place]] = {}
        for character in text:
            key = (places, character)
            found = known.get(key)
            if found is None:
                found = known[key] = frozenset(self._step(places, character))
            places = found
            if not places:
                raise CannotContinue("the answer does not fit it")
            if len(places) > GUIDE_PLACES:
                raise CannotContinue("the answer fits it in too many ways")
        return places

    def _step(self, places: Iterable[Place], character: str) -> Iterator[Place]:
        left = list(places)
        while left:
            elements, unclear = left.pop()
            if not elements:
                continue
            below, top = elements[:-1], elements[-1]
            match top:
                case str():
                    if top[0] == character:
                        yield (*below, *([top[1:]] if top[1:] else [])), unclear
                case Lexeme(nodes, words):
                    if any(map(is_nullable, nodes)) and "" not in words:
                        left.append((below, unclear))
                    if (rest := _after(top, character)) is not None:
                        yield (*below, *([] if rest.nodes == {EMPTY} else [rest])), unclear
                case Unclear(number):
                    left.append((below, unclear | {number}))
                case _:
                    opened = self.opened(top)
                    left += [((*below, *reversed(sequence)), unclear) for sequence in opened]

    def opened(self, element: Value | Members | Items) -> list[tuple[Element, ...]]:
        """Returns the sequences of elements, of which an element is one."""
        match element:
            case Value(number):
                return self._value(self._schemas[number])
            case Members():
                return self._members(element)
            case Items():
                return self._items(element)

    def _value(self, schema: Any, above: frozenset[int] = frozenset()) -> list[tuple[Element, ...]]:
        """`above` are the schemas, by identity, that lead to this one at the same place."""
        if schema is False or id(schema) in above:
            return []
        above |= {id(schema)}
        if schema is True:
            schema = {}
        keys = schema.keys() - _REMARKS
        for name in ("anyOf", "oneOf", "allOf"):
            if keys == {name} and (name != "allOf" or len(schema[name]) == 1):
                return [found for part in schema[name] for found in self._value(part, above)]
        if keys == {"$ref"}:
            return self._value(self._resolved(schema["$ref"]), above)
        types = _types(schema)
        if keys <= {"const", "type"} and "const" in keys:
            return [(literal,) for literal in _literals([schema["const"]], types)]
        if keys <= {"enum", "type"} and "enum" in keys:
            return [(literal,) for literal in _literals(schema["enum"], types)]
        if not keys <= _ALL_KEYWORDS | {"type"}:
            return self._unclear(schema, types)
        return [found for kind in types for found in self._of_type(schema, kind)]

    def _resolved(self, reference: Any) -> Any:
        try:
            return resolve(self.root, reference)
        except (LookupError, TypeError):
            raise CannotContinue("it has a reference to elsewhere") from None

    def _unclear(self, schema: Any, types: Iterable[str]) -> list[tuple[Element, ...]]:
        """Follows a value by its type alone. The rest behind it is known again."""
        number = self.number(schema)
        anything = self._schemas[self._any]
        return [
            (*found, Unclear(number)) for kind in types for found in self._of_type(anything, kind)
        ]

    def _of_type(self, schema: Any, kind: str) -> list[tuple[Element, ...]]:
        match kind:
            case "null":
                return [("null",)]
            case "boolean":
                return [("true",), ("false",)]
            case "object":
                return [("{", Members(self.number(schema), 0, False))]
            case "array":
                return [("[", Items(self.number(schema), 0))]
        try:
            node = string(schema) if kind == "string" else _number(schema, kind)
        except CannotContinue:
            return self._unclear(schema, [kind])
        return [(Lexeme(frozenset([node])),)]

    def members(self, number: int) -> tuple[list[tuple[str, Any, bool]], Any]:
        """Returns an object's properties, each with its schema and whether it must be there, and
        the schema of the others."""
        schema = self._schemas[number]
        required = schema.get("required", [])
        properties = schema.get("properties", {})
        others = schema.get("additionalProperties", True)
        every = {**properties, **{name: others for name in required if name not in properties}}
        found = [(name, part, name in required) for name, part in every.items()]
        return [one for one in found if one[2] or not self._fails(one[1])], others

    def _members(self, rest: Members) -> list[tuple[Element, ...]]:
        properties, others = self.members(rest.number)
        comma = "," if rest.has_some else ""
        found: list[tuple[Element, ...]] = []
        for index, (name, schema, is_required) in enumerate(properties):
            if index < rest.index:
                continue
            if self._fails(schema):  # and it must be there
                return found
            after_it = Members(rest.number, index + 1, True)
            found.append((f"{comma}{as_json(name)}:", Value(self.number(schema)), after_it))
            if is_required:
                return found
        found.append(("}",))
        if not self._fails(others):
            last = Members(rest.number, len(properties), True)
            other = self.other_name(rest.number)
            value = Value(self.number(others))
            found.append((*([comma] if comma else []), other, ":", value, last))
        return found

    def _fails(self, schema: Any) -> bool:
        """Whether no value fits a schema."""
        known = self._failing.get(id(schema))
        if known is None:
            known = self._failing[id(schema)] = is_impossible(self.root, schema)
        return known

    def other_name(self, number: int) -> Lexeme:
        """Returns the names of the properties that a schema does not name."""
        schema = self._schemas[number]
        names = [*schema.get("properties", {}), *schema.get("required", [])]
        node = ANY_NAME if names else string({})
        return Lexeme(frozenset([node]), frozenset(map(as_json, names)))

    def item(self, number: int, count: int) -> Any:
        """Returns the schema of an item."""
        schema = self._schemas[number]
        first = schema.get("prefixItems", [])
        return first[count] if count < len(first) else schema.get("items", True)

    def _items(self, rest: Items) -> list[tuple[Element, ...]]:
        schema = self._schemas[rest.number]
        found: list[tuple[Element, ...]] = []
        if rest.count >= schema.get("minItems", 0):
            found.append(("]",))
        item = self.item(rest.number, rest.count)
        if rest.count < schema.get("maxItems", rest.count + 1) and not self._fails(item):
            comma = (",",) if rest.count else ()
            count = rest.count + 1
            if "maxItems" not in schema:  # from there on, all counts are the same
                most = max(1, schema.get("minItems", 0), len(schema.get("prefixItems", [])))
                count = min(count, most)
            more = Items(rest.number, count)
            found.append((*comma, Value(self.number(item)), more))
        return found


def as_json(value: Any) -> str:
    return json.encode(value).decode()


def _after(lexeme: Lexeme, character: str) -> Lexeme | None:
    nodes: frozenset[Node] = frozenset().union(*(after(node, character) for node in lexeme.nodes))
    if not nodes:
        return None
    words = frozenset(word[1:] for word in lexeme.words if word[:1] == character)
    return None if nodes == {EMPTY} and "" in words else Lexeme(nodes, words)


def _types(schema: Any) -> tuple[str, ...]:
    named = schema.get("type", _TYPES)
    return (named,) if isinstance(named, str) else tuple(dict.fromkeys(named))


def _type_of(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "null" if value is None else "boolean"
    if isinstance(value, int | float):
        return "integer" if isinstance(value, int) else "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"


def _literals(values: list[Any], types: tuple[str, ...]) -> list[str]:
    """Returns the values that are of one of the types, as JSON."""
    return [
        as_json(value)
        for value in values
        if (kind := _type_of(value)) in types or (kind == "integer" and "number" in types)
    ]


def _number(schema: Any, kind: str) -> Node:
    bounds = {name: schema[name] for name in _KEYWORDS["number"] if name in schema}
    if kind != "integer":
        return (
            numbers(_bound(bounds, max, "inimum"), _bound(bounds, min, "aximum"))
            if bounds
            else NUMBER
        )
    if not all(isinstance(bound, int) and abs(bound) < 10**15 for bound in bounds.values()):
        raise CannotContinue("it is within an integer with a bound that is not a small integer")
    least = [bounds["minimum"]] if "minimum" in bounds else []
    least += [bounds["exclusiveMinimum"] + 1] if "exclusiveMinimum" in bounds else []
    most = [bounds["maximum"]] if "maximum" in bounds else []
    most += [bounds["exclusiveMaximum"] - 1] if "exclusiveMaximum" in bounds else []
    return integers(max(least, default=None), min(most, default=None))


def _bound(bounds: dict[str, Any], nearest: Callable[..., Any], name: str) -> Bound | None:
    """Returns the nearer bound of two: the range has the one, and not the other."""
    found = [(bounds[key], key[0] != "e") for key in bounds if key.endswith(name)]
    if not found:
        return None
    value = nearest(value for value, _ in found)
    is_in = all(is_in for each, is_in in found if each == value)
    return Bound(Decimal(str(value)), is_in)
