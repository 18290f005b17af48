"""The regexes of the strings in JSON."""

from functools import lru_cache
from typing import Any

from dynemo.engines.guides.rest.errors import CannotContinue
from dynemo.engines.guides.rest.parse import parse_search
from dynemo.engines.guides.rest.regex import Alt, Cat, Chars, Item, Node, Repeat, cat, literal

#: Characters that a string cannot have as they are.
_SPECIAL: tuple[Item, ...] = ((0, 31), (34, 34), (92, 92), (127, 127))
_SHORT = {8: "b", 9: "t", 10: "n", 12: "f", 13: "r", 34: '"', 92: "\\"}
_HEX = Chars(((48, 57), (65, 70), (97, 102)))
_ESCAPED = Alt((
    Cat((literal("\\"), Chars(tuple((ord(c), ord(c)) for c in '"\\/bfnrt')))),
    cat(literal("\\u"), Repeat(_HEX, 4, 4)),
))  # fmt: skip
QUOTE = literal('"')
#: The name of a property beside those that the schema names.
ANY_NAME = cat(
    QUOTE, Repeat(Alt((_ESCAPED, Chars(_SPECIAL, is_negated=True))), 0, None), QUOTE
)  # fmt: skip
_ANY = Chars(((0, 0x10FFFF),))
_FORMATS: dict[str, str] = {
    "date": r"^\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])$",
}


def string(schema: dict[str, Any]) -> Node:
    """Returns the regex of the JSON strings that fit a schema, with their quotes.

    Raises CannotContinue.
    """
    least, most = int(schema.get("minLength", 0)), schema.get("maxLength")
    if "format" in schema:
        raise CannotContinue("it is within a string that has a format")
    pattern = schema.get("pattern")
    if pattern is None:
        node: Node = Repeat(_ANY, least, None if most is None else int(most))
    elif least or most is not None:
        raise CannotContinue("it is within a string that has both a pattern and a length")
    else:
        node = parse_search(pattern)
    return cat(QUOTE, _quoted(node), QUOTE)


def _quoted(node: Node) -> Node:
    """A regex of texts as the regex of what stands for them within the quotes of a string."""
    match node:
        case Chars():
            return _quoted_chars(node)
        case Cat(parts):
            return cat(*map(_quoted, parts))
        case Alt(parts):
            return Alt(tuple(map(_quoted, parts)))
        case Repeat(part, least, most):
            return Repeat(_quoted(part), least, most)


@lru_cache(256)
def _quoted_chars(chars: Chars) -> Node:
    options: list[Node] = [Chars(chars.items, chars.is_negated, _SPECIAL)]
    for code in (*range(32), 34, 92, 127):
        if chars.has(chr(code)):
            options += _escapes(code)
    return Alt(tuple(options))


def _escapes(code: int) -> list[Node]:
    found = [literal(f"\\{_SHORT[code]}")] if code in _SHORT else []
    return [*found, *_hex_escapes(code)]


def _hex_escapes(code: int) -> list[Node]:
    if code in (34, 92):
        return []
    digits = [Chars(tuple({(ord(d), ord(d)) for d in (c, c.upper())})) for c in f"{code:04x}"]
    return [cat(literal("\\u"), *digits)]
