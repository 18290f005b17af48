"""120 JSON schemas of growing oddity, by name."""

from typing import Any


def _object(_required: list[str] | None = None, /, **properties: Any) -> dict[str, Any]:
    """All properties are required, unless `_required` names some of them."""
    names = list(properties) if _required is None else _required
    return {
        "type": "object",
        "properties": properties,
        "required": names,
        "additionalProperties": False,
    }


_INTEGER = {"type": "integer"}
_STRING = {"type": "string", "maxLength": 6}
_BOOLEAN = {"type": "boolean"}
_SHORT = {"type": "string", "maxLength": 2}

#: Plain values.
_VALUES: dict[str, Any] = {
    "null": {"type": "null"},
    "boolean": _BOOLEAN,
    "integer": _INTEGER,
    "number": {"type": "number"},
    "string": {"type": "string"},
    "short string": _STRING,
    "array": {"type": "array", "maxItems": 3, "items": _INTEGER},
    "object": _object(a=_INTEGER),
    "any object": {"type": "object"},
    "anything": {},
    "true": True,
    "two types": {"type": ["integer", "null"]},
    "no type": {"properties": {"a": _INTEGER}, "maxItems": 2, "maxLength": 3},
    "title": {"title": "T", "description": "d", "type": "integer", "default": 3, "examples": [1]},
}
_NUMBERS: dict[str, Any] = {
    "minimum": {"type": "integer", "minimum": 10},
    "maximum": {"type": "integer", "maximum": 10},
    "range": {"type": "integer", "minimum": 3, "maximum": 17},
    "negative range": {"type": "integer", "minimum": -30, "maximum": -4},
    "range around zero": {"type": "integer", "minimum": -5, "maximum": 5},
    "exclusive range": {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 3},
    "range of one": {"type": "integer", "minimum": 7, "maximum": 7},
    "wide range": {"type": "integer", "minimum": 99, "maximum": 100_001},
    "share": {"type": "number", "minimum": 0, "maximum": 1},
    "exclusive share": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "price": {"type": "number", "minimum": 0.5, "maximum": 99.95},
    "temperature": {"type": "number", "minimum": -273.15},
    "at most": {"type": "number", "maximum": -0.25},
    "close": {"type": "number", "minimum": 1.25, "maximum": 1.3},
    "multiple": {"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 500},
    "fraction multiple": {"type": "number", "multipleOf": 0.25, "minimum": 0, "maximum": 9},
}
_STRINGS: dict[str, Any] = {
    "length": {"type": "string", "minLength": 2, "maxLength": 4},
    "empty string": {"type": "string", "maxLength": 0},
    "pattern": {"type": "string", "pattern": "^[a-z]{2,4}$"},
    "pattern of digits": {"type": "string", "pattern": r"^\d{3}-\d{2}$"},
    "pattern of choices": {"type": "string", "pattern": "^(red|green|blue)$"},
    "pattern with quotes": {"type": "string", "pattern": r'^"[a-z\\]{1,3}"$'},
    "pattern with letters": {"type": "string", "pattern": "^[äöü]{1,3}$"},
    "pattern and length": {"type": "string", "pattern": "^[ab]*$", "maxLength": 4},
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string", "format": "time"},
    "date and time": {"type": "string", "format": "date-time"},
    "uuid": {"type": "string", "format": "uuid"},
    "ipv4": {"type": "string", "format": "ipv4"},
    "ipv6": {"type": "string", "format": "ipv6"},
    "mail": _object(mail={"type": "string", "format": "email"}),
    "hostname": {"type": "string", "format": "hostname"},
}
_LITERALS: dict[str, Any] = {
    "enum": {"enum": ["red", "green", "blue"]},
    "enum of kinds": {"enum": ["a", 1, None, True, 2.5]},
    "enum with prefixes": {"enum": ["a", "ab", "abc"]},
    "enum of letters": {"enum": ["é", "😀", 'q"q', "back\\slash", "tab\t"]},
    "enum of one type": {"type": "string", "enum": ["a", 1]},
    "const": {"const": "v"},
    "const number": {"const": 42},
    "const null": {"const": None},
    "const object": {"const": {"a": [1, "b"], "c": None}},
    "const array": {"const": [1, [2, "x"]]},
    "enum of objects": {"enum": [{"a": 1}, {"a": 2, "b": []}]},
}
_ARRAYS: dict[str, Any] = {
    "empty array": {"type": "array", "maxItems": 0},
    "items": {"type": "array", "items": _BOOLEAN, "maxItems": 4},
    "exactly two": {"type": "array", "items": _INTEGER, "minItems": 2, "maxItems": 2},
    "at least one": {"type": "array", "items": _SHORT, "minItems": 1, "maxItems": 3},
    "tuple": {"type": "array", "prefixItems": [_INTEGER, _SHORT], "items": False, "minItems": 2},
    "open tuple": {"type": "array", "prefixItems": [_INTEGER], "items": _BOOLEAN, "maxItems": 3},
    "short tuple": {"type": "array", "prefixItems": [_INTEGER, _BOOLEAN], "items": False},
    "no items": {"type": "array", "items": False},
    "matrix": {
        "type": "array",
        "items": {"type": "array", "items": _INTEGER, "minItems": 2, "maxItems": 2},
        "minItems": 2,
        "maxItems": 2,
    },
    "array of objects": {"type": "array", "items": _object(a=_INTEGER), "maxItems": 2},
    "array of anything": {"type": "array", "maxItems": 2},
    "long array": {"type": "array", "items": {"enum": [0, 1]}, "minItems": 20, "maxItems": 25},
}
_OBJECTS: dict[str, Any] = {
    "two": _object(a=_INTEGER, b=_BOOLEAN),
    "optional": _object([], a=_INTEGER, b=_BOOLEAN),
    "one optional": _object(["b"], a=_INTEGER, b=_BOOLEAN),
    "first required": _object(["a"], a=_INTEGER, b=_BOOLEAN, c=_SHORT),
    "last required": _object(["c"], a=_INTEGER, b=_BOOLEAN, c=_SHORT),
    "nested": _object(a=_object(b=_object(c=_INTEGER))),
    "map": _object(m={"type": "object", "additionalProperties": _INTEGER}),
    "only a map": {"type": "object", "additionalProperties": _BOOLEAN},
    "open": {"type": "object", "properties": {"a": _INTEGER}, "required": ["a"]},
    "required without a property": {"type": "object", "required": ["z"]},
    "odd names": _object(None, **{"a b": _INTEGER, "é": _BOOLEAN, 'q"': _SHORT, "": _INTEGER}),
    "names with one begin": _object(["abc"], a=_INTEGER, ab=_INTEGER, abc=_INTEGER),
    "open with one begin": {
        "type": "object",
        "properties": {"abc": _INTEGER, "abd": _BOOLEAN},
        "additionalProperties": {"type": "null"},
    },
    "impossible property": _object(["a"], a=_INTEGER, b=False),
    "empty object": _object(),
    "many properties": _object(None, **{f"p{n}": _BOOLEAN for n in range(20)}),
    "many optional properties": _object([], **{f"p{n}": _BOOLEAN for n in range(20)}),
    "person": _object(
        name=_STRING,
        age={"type": "integer", "minimum": 0, "maximum": 120},
        tags={"type": "array", "items": _SHORT, "maxItems": 2},
        address=_object(["city"], city=_STRING, zip={"type": "string", "pattern": "^[0-9]{5}$"}),
    ),
    "pattern properties": {
        "type": "object",
        "patternProperties": {"^x": _INTEGER},
        "additionalProperties": False,
    },
    "property count": {"type": "object", "minProperties": 1},
    "property names": {"type": "object", "propertyNames": {"maxLength": 3}},
    "dependent": {"type": "object", "dependentRequired": {"a": ["b"]}},
}
_CHOICES: dict[str, Any] = {
    "any of types": {"anyOf": [_INTEGER, _BOOLEAN, {"type": "null"}]},
    "any of objects": {"anyOf": [_object(a=_INTEGER), _object(b=_SHORT)]},
    "any of one begin": {
        "anyOf": [_object(kind={"const": "a"}, x=_INTEGER), _object(kind={"const": "ab"}, y=_SHORT)]
    },
    "optional value": _object(v={"anyOf": [_STRING, {"type": "null"}]}),
    "one of types": {"oneOf": [_INTEGER, _SHORT]},
    "one of objects": {
        "oneOf": [
            _object(kind={"const": "a"}, x=_INTEGER),
            _object(kind={"const": "b"}, x=_SHORT),
        ]
    },
    "one of that overlap": {"oneOf": [{"type": "integer"}, {"type": "number"}]},
    "all of one": {"allOf": [_INTEGER]},
    "all of two": {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 9}]},
    "all of objects": {
        "allOf": [
            {"type": "object", "properties": {"a": _INTEGER}, "required": ["a"]},
            {"properties": {"b": _BOOLEAN}, "required": ["b"]},
        ],
        "maxItems": 2,
    },
    "any of with more": {"type": "integer", "anyOf": [{"minimum": 10}, {"maximum": 3}]},
    "not": {"not": {"type": "string"}},
    "if": {"if": {"type": "integer"}, "then": {"minimum": 3}},
    "never": False,
    "no choice": {"enum": []},
    "contradiction": {"allOf": [{"type": "integer"}, {"type": "string"}]},
}
_NODE = _object(value=_INTEGER, next={"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]})
_REFERENCES: dict[str, Any] = {
    "reference": {"$ref": "#/$defs/n", "$defs": {"n": _INTEGER}},
    "old reference": {"$ref": "#/definitions/n", "definitions": {"n": _SHORT}},
    "chain": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": _BOOLEAN}},
    "list": {"$ref": "#/$defs/node", "$defs": {"node": _NODE}},
    "tree": {
        "type": "object",
        "properties": {"c": {"type": "array", "items": {"$ref": "#"}, "maxItems": 2}},
        "required": ["c"],
        "additionalProperties": False,
    },
    "reference to a property": _object(a=_INTEGER, b={"$ref": "#/properties/a"}),
    "reference with a name": {
        "$ref": "#/$defs/a~1b%20c",
        "$defs": {"a/b%20c": _INTEGER, "a/b c": _INTEGER},
    },
    "reference with more": {"$ref": "#/$defs/n", "minimum": 3, "$defs": {"n": _INTEGER}},
    "described reference": {"$ref": "#/$defs/n", "title": "N", "$defs": {"n": _INTEGER}},
    "reference to nothing": {"$ref": "#/$defs/none"},
    "reference to elsewhere": {"$ref": "https://example.com/schema.json"},
    "itself": {"$ref": "#"},
    "itself as a property": {"properties": {"a": {"$ref": "#/properties/a"}}, "required": ["a"]},
}

SCHEMAS: dict[str, Any] = {
    **_VALUES,
    **_NUMBERS,
    **_STRINGS,
    **_LITERALS,
    **_ARRAYS,
    **_OBJECTS,
    **_CHOICES,
    **_REFERENCES,
}
#: Schemas that no engine follows: llguidance cannot, or reads them in another way.
REFUSED = frozenset({
    "pattern with quotes",
    "property count", "property names", "dependent", "one of that overlap", "not", "if", "never",
    "no choice", "contradiction", "reference to nothing", "reference to elsewhere", "itself",
    "itself as a property", "reference with a name",
})  # fmt: skip
#: Schemas that are followed, but not from everywhere within an answer.
_NOT_ADVANCED = frozenset({
    "multiple", "fraction multiple", "pattern and length", "ipv6", "pattern properties",
    "all of two", "all of objects", "any of with more", "reference with more",
})  # fmt: skip
ADVANCED = [name for name in SCHEMAS if name not in REFUSED | _NOT_ADVANCED]
