"""Guides that a server must follow, and guides that would stop it for everybody."""

from typing import Any

from msgspec import json

#: Usual grammars in GBNF.
GRAMMARS = {
    "json": r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws (string ":" ws value ("," ws string ":" ws value)*)? "}" ws
array  ::= "[" ws (value ("," ws value)*)? "]" ws
string ::= "\"" ([^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt/] | "u" [0-9a-fA-F]{4}))* "\"" ws
number ::= "-"? ("0" | [1-9] [0-9]{0,15}) ("." [0-9]+)? ([eE] [-+]? [0-9]{1,15})? ws
ws     ::= | " " | "\n" [ \t]{0,20}
""",
    "arithmetic": r"""
root ::= (expr "=" ws term "\n")+
expr ::= term ([-+*/] term)*
term ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num  ::= [0-9]+ ws
ws   ::= [ \t\n]*
""",
    "chess": r"""
root ::= "1. " move " " move "\n" ([1-9] [0-9]? ". " move " " move "\n")+
move ::= (pawn | piece | castle) [+#]?
piece ::= [NBKQR] [a-h]? [1-8]? "x"? [a-h] [1-8]
pawn ::= ([a-h] "x")? [a-h] [1-8] ("=" [NBKQR])?
castle ::= "O-O" "-O"?
""",
    "list": 'root ::= item+\nitem ::= "- " [^\\r\\n\\x0b\\x0c]+ "\\n"',
    "letters": "root ::= [ぁ-ゟ゠-ヿ一-龯]+ ([ \\t\\n] [ぁ-ゟ]+)*",
    "choices": "root ::= " + " | ".join(f'"choice {n}"' for n in range(300)),
    "tokens": 'root ::= <think> [a-z]+ </think> "<a>" [<>] # <not a token>',
    "program": r"""
root ::= (function)*
function ::= type " " name "(" (type " " name ("," " "? type " " name)*)? ")" "{" statement* "}"
type ::= "int" | "float" | "char"
statement ::= name " = " sum ";" | "if (" sum ("<" | "==") sum ") {" statement* "}" |
    "return " sum ";" | "while (" sum ") {" statement* "}" | type " " name ";"
sum ::= product ([-+] product)*
product ::= atom ([*/] atom)*
atom ::= name | [0-9]+ | "-" atom | "(" sum ")" | name "(" (sum ("," sum)*)? ")"
name ::= [a-zA-Z_] [a-zA-Z_0-9]*
""",
    "fields": (
        'root ::= "{" ws ('
        + " | ".join(f"f{n} r{n}" for n in range(40))
        + ')? "}"\n'
        + "".join(f'f{n} ::= "\\"name {n}\\":" ws (string | number)\n' for n in range(41))
        + "".join(f'r{n} ::= ("," ws f{n + 1})? r{n + 1}\n' for n in range(40))
        + r"""
r40 ::= ""
string ::= "\"" ([^"\\\x7F\x00-\x1F] | "\\" ["\\bfnrt/])* "\"" ws
number ::= "-"? [0-9]+ ("." [0-9]+)? ws
ws ::= [ \n]?
"""
    ),
    "odd": 'root ::= ("a"*)* | .? "\\u00e9" | "b"{0,1000000} | "" ',
}

#: Grammars that llama.cpp would crash on, or be stuck in, and what the refusal says.
HOSTILE_GRAMMARS = {
    "many ways to begin": (
        "root ::= r0\n"
        + "".join(f"r{n} ::= r{n + 1}? r{n + 1}?\n" for n in range(12))
        + 'r12 ::= "a"',
        "one text may follow it in 4096 ways",
    ),
    "nested options": ('root ::= (("a"?){20}){20}', "one text may follow it in 4096 ways"),
    "overlapping classes": (
        "root ::= x*\nx ::= " + " | ".join(f"[a-{end}]" for end in "qrstuvwxyz"),
        "one text may follow it in 4096 ways",
    ),
    "overlapping repetitions": (
        "root ::= " + " ".join(f"[{chr(97 + n % 25)}-z]*" for n in range(60)),
        "one text may follow it in 4096 ways",
    ),
    "a slow part first": (
        'root ::= "x" t "!" '
        + " ".join(f"[{chr(97 + n % 25)}-z]*" for n in range(60))
        + '\nt ::= ("a" | "b" | "c") t? | "!"',
        "one text may follow it in 4096 ways",
    ),
    "too much to search": (
        "root ::= r0\n"
        + "".join(f'r{n} ::= [a-f] r{n + 1} [g-m] r{n}? | "{n}"\n' for n in range(2500))
        + 'r2500 ::= "x"',
        "too many parts",
    ),
    "no character behind a long word": (
        'root ::= "' + "a" * 300 + '" [z-a]',
        "no character is in the class",
    ),
    "two ends": ('root ::= e\ne ::= "a" e "b" | "a" e "c" | "a"', "may lead to 512 places"),
    "two ends behind a word": (
        'root ::= "no" | "password" e\ne ::= "a" e "b" | "a" e "c" | "a"',
        "may lead to 512 places",
    ),
    "slow growth": ('root ::= e\ne ::= "a" e e | "a"', "the longer the text, the more places"),
    "a wrong range": ('root ::= "a"{5,2}', "takes more than"),
    "deep": ("root ::= " + "(" * 25_000 + '"a"' + ")" * 25_000, "nested more deeply"),
    "a long chain": (
        "root ::= r0\n" + "".join(f"r{n} ::= r{n + 1}\n" for n in range(200_000)),
        "it may have 262144 bytes",
    ),
    "a chain": (
        "root ::= r0\n" + "".join(f"r{n}::=r{n + 1}\n" for n in range(15_000)) + 'r15000::="a"',
        "nested more deeply",
    ),
    "long": ('root ::= "' + "abcdefghij" * 20_000 + '"', "it may have 50000 elements"),
    "long when repeated": ('root ::= "' + "abcdefghij" * 1000 + '"{1999}', "cannot be followed"),
    "no character": ("root ::= [z-a]+", "no character is in the class"),
    "a surrogate": ('root ::= "a" "\\ud800"', "no character is in the class"),
    "left recursion": ('root ::= root "a" | "a"', "left recursion"),
    "hidden left recursion": ('root ::= x\nx ::= y? root "a"\ny ::= "b"', "left recursion"),
    "an unknown rule": ("root ::= foo", "Undefined rule identifier 'foo'"),
    "no root": ('r ::= "a"', "Undefined rule identifier 'root'"),
    "another language": ("%llguidance {}\nstart: /a/", "it must be written in GBNF"),
    "no number": ('root ::= "a"{99999999999999999999999}', "cannot be followed"),
    "empty group": ('root ::= (""*)*', "expecting preceding item"),
    "an escape": ('root ::= "\\uZZZZ"', "expecting 4 hex chars"),
}


def tools() -> dict[str, Any]:
    """The schema of a call of one of 20 tools, as large as they get."""
    calls = []
    for n in range(20):
        about = f"An argument of tool {n}, described in a sentence as people write them."
        arguments: dict[str, Any] = {
            "city": {"type": "string", "description": about, "maxLength": 200},
            "count": {"type": "integer", "description": about, "minimum": 0, "maximum": 100},
            "unit": {"enum": [f"unit_{n}_{value}" for value in range(25)], "description": about},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 10},
            "place": {
                "type": "object",
                "properties": {"x": {"type": "number"}, "y": {"type": "number"}},
                "required": ["x", "y"],
                "additionalProperties": False,
            },
            "mail": {"type": "string", "pattern": r"^[a-z0-9.]{1,40}@[a-z0-9]{1,40}\.[a-z]{2,5}$"},
            **{f"option_{k}": {"type": "boolean", "description": about} for k in range(12)},
        }
        arguments["day"] = {"type": "string", "format": "date-time"}
        calls.append(_object({"name": {"const": f"tool_{n}"}, "arguments": _object(arguments)}))
    calls.append(_object({"country": {"enum": [f"the country {n}" for n in range(500)]}}))
    return {"anyOf": calls}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    required = list(properties)[:8]
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"anyOf": [{"type": "array", "items": schema}, {"items": schema}] * 4}
    return schema


def _product() -> dict[str, Any]:
    choices = [
        {"anyOf": [_object({f"a{n}_{k}": {"type": "integer"}}) for k in range(4)]} for n in range(6)
    ]
    for part in choices:
        for choice in part["anyOf"]:
            del choice["additionalProperties"]
    return {"allOf": choices}


#: Schemas that a client may send.
SCHEMAS: dict[str, Any] = {
    "object": {"type": "object"},
    "tools": tools(),
    "tree": {
        "$defs": {"node": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2}},
        "$ref": "#/$defs/node",
    },
    "long": {"type": "string", "maxLength": 10**9},
    "compact": {"enum": [1, "a"], "x-guidance": {"whitespace_flexible": False}},
}

#: Schemas that would delay or end an engine, and what the refusal says.
HOSTILE_SCHEMAS: dict[str, tuple[Any, str]] = {
    "a long pattern": ({"pattern": "^((x{1000}){1000})$"}, "'pattern' may have 10000 characters"),
    "a deep pattern": ({"pattern": "(" * 5000 + ")" * 5000}, "cannot be followed"),
    "a long text": ({"const": "x" * 20_000}, "a string in it may have 10000 characters"),
    "a forced text": (
        {
            "type": "array",
            "prefixItems": [{"const": "x" * 9000}, {"const": "y" * 9000}],
            "minItems": 2,
            "x-guidance": {"whitespace_flexible": False},
        },
        "it may force 10000 characters in a row",
    ),
    "many items": ({"type": "array", "minItems": 10**9}, "may be 20000 in sum"),
    "many items as a float": ({"type": "array", "minItems": 1e9}, "may be 20000 in sum"),
    "many remainders": ({"type": "integer", "multipleOf": 99_991}, "cannot be followed"),
    "small steps": ({"type": "number", "multipleOf": 1e-300}, "cannot be followed"),
    "a million values": ({"enum": [f"v{n}" for n in range(1_000_000)]}, "may have 262144 bytes"),
    "many properties": (
        {"type": "object", "properties": {f"p{n}": {"type": "integer"} for n in range(6000)}},
        "cannot be followed",
    ),
    "nested choices": (_nested(5), "may have 262144 bytes"),
    "a product": (_product(), "cannot be followed"),
    "a chain of references": (
        {
            "$defs": {
                **{f"a{n}": {"$ref": f"#/$defs/a{n + 1}"} for n in range(5000)},
                "a5000": {"type": "integer"},
            },
            "$ref": "#/$defs/a0",
        },
        "nested more deeply",
    ),
    "itself": ({"$ref": "#"}, "'$ref' leads back to itself"),
    "itself in all": ({"allOf": [{"$ref": "#"}]}, "'$ref' leads back to itself"),
    "a property that is itself": (
        {"properties": {"a": {"$ref": "#/properties/a"}}, "required": ["a"]},
        "'$ref' leads back to itself at \"#/properties/a\"",
    ),
    "two that are each other": (
        {
            "type": "array",
            "items": {"$ref": "#/$defs/a"},
            "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}},
        },
        "'$ref' leads back to itself",
    ),
    "no type": ({"type": "objekt"}, "Invalid type"),
}

#: Regexes that a client may send.
REGEXES = {
    "a number": r"-?(0|[1-9]\d*)(\.\d+)?",
    "a mail": r"[a-z0-9._]{1,40}@[a-z0-9]+(\.[a-z]{2,5}){1,3}",
    "words": r"(yes|no|maybe)( (yes|no|maybe)){0,4}",
    "letters": r"\p{Lu}\p{L}{1,20}",
    "anchors": "^(a|b)+$",
    "a path": "/usr/[a-z]+/\nend",
    "nothing": "",
    "nested": "(((a*)*)*)*b",
    "many states": "(a|b)*a(a|b){20}",
}

#: Regexes that no engine gets, and what the refusal says.
HOSTILE_REGEXES = {
    "no character": ("[z-a]", "the start must be <= the end"),
    "an open group": ("(", "unclosed group"),
    "repeated": ("((a{1,1000}){1,1000}){1,1000}", "it may have 10000 characters when repeated"),
    "repeated for ever": ("a{1000000000}", "cannot be followed"),
    "deep": ("(" * 4000 + "a" + ")" * 4000, "cannot be followed"),
    "long": ("a" * 20_000, "it may have 10000 characters when repeated"),
    "look-ahead": ("(?=a)b", "look-around"),
    "a word's border": (r"\bab", "lookarounds not supported"),
    "many ways": (".*" * 4000, "its check takes more than"),
    "the same again": (r"(a)\1", "backreferences are not supported"),
}

CHOICES = {
    "two": ["yes", "no"],
    "one": ["only"],
    "empty": ["", "x"],
    "twice": ["a", "a"],
    "a prefix": ["a", "ab", "abc"],
    "signs": ['"\n\t\\/\x00\x7f\x85é😀 |'],
    "many": [f"choice {n}" for n in range(2000)],
}

HOSTILE_CHOICES: dict[str, tuple[Any, str]] = {
    "none": ([], "it has no choice"),
    "a number": (["a", 1], "it is not a JSON list of texts"),
    "an object": ({"a": "b"}, "it is not a JSON list of texts"),
    "a long one": (["x" * 20_000], "a choice may have 10000 characters"),
    "too many": ([f"{n}" for n in range(20_000)], "it may have 10000 choices"),
    "all too long": ([f"{n}" + "x" * 9000 for n in range(40)], "it may have 262144 bytes"),
}

LARKS = {
    "a rule": 'start: "a" word\nword: /[a-z]{1,8}/',
    "a sum": 'start: sum\nsum: product ("+" product)*\nproduct: NUMBER | "(" sum ")"\n'
    "NUMBER: /[0-9]+/",
    "left recursion": 'start: list\nlist: list "," "x" | "x"',
    "JSON": 'start: "call " %json {"type":"object","properties":{"a":{"type":"integer"}}}',
    "repeated": 'start: ("a" | "b"){2,5} "!"',
}

HOSTILE_LARKS = {
    "no start": ('foo: "a"', "no start rule found"),
    "an unknown rule": ("start: foo", "unknown name"),
    "itself": ("start: start", "no answer could begin"),
    "always itself": ('start: start "a"', "no answer could begin"),
    "deep": ("start: " + "(" * 5000 + '"a"' + ")" * 5000, "cannot be followed"),
    "no character": ("start: /[z-a]/", "the start must be <= the end"),
    "a forced text": ('start: "' + "x" * 20_000 + '"', "it may force 10000 characters"),
    "many items": ('start: %json {"minItems":1000000000}', "cannot be followed"),
    "a chain": (
        "start: a0\n" + "".join(f"a{n}: a{n + 1}\n" for n in range(12_000)) + 'a12000: "x"',
        "cannot be followed",
    ),
    "GBNF": ('root ::= "a"', "cannot be followed"),
    "nothing": ("", "cannot be followed"),
}


def as_text(schema: Any) -> str:
    return json.encode(schema).decode()
