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
_DATE = (
    r"\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])"
    r"|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|[12]\d))"
)
_TIME = (
    r"(?:[01]\d|2[0-3]):[0-5]\d:(?:[0-5]\d|60)(?:\.\d+)?"
    r"(?:[zZ]|[+\-](?:[01]\d|2[0-3]):[0-5]\d)"
)
_BYTE = r"(?:\d|[1-9]\d|1\d\d|2[0-4]\d|25[0-5])"
_IPV4 = rf"(?:{_BYTE}\.){{3}}{_BYTE}"
_ATOM = r"[a-zA-Z0-9!#$%&'*+\-/=?\^_`{|}~]+"
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9\-]*[a-zA-Z0-9])?"
_HOST_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9\-]{0,61}[a-zA-Z0-9])?"
#: The formats as llguidance reads them.
_FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": rf"{_DATE}[tT]{_TIME}",
    "uuid": r"[\da-fA-F]{8}(?:-[\da-fA-F]{4}){3}-[\da-fA-F]{12}",
    "ipv4": _IPV4,
    "hostname": rf"{_HOST_LABEL}(?:\.{_HOST_LABEL})*",
    "email": rf"{_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}(?:\.{_LABEL})*|\[{_IPV4}\])",
}


def string(schema: dict[str, Any]) -> Node:
    """Returns the regex of the JSON strings that fit a schema, with their quotes.

    Raises CannotContinue.
    """
    least, most = int(schema.get("minLength", 0)), schema.get("maxLength")
    pattern = schema.get("pattern")
    if "format" in schema:
        known = _FORMATS.get(schema["format"])
        if known is None or pattern is not None:
            raise CannotContinue("it is within a string of another format")
        pattern = f"^(?:{known})$"
    if pattern is None:
        node: Node = Repeat(_ANY, least, None if most is None else int(most))
    elif least or most is not None:
        raise CannotContinue("it is within a string that has both a pattern and a length")
    else:
        node = parse_search(pattern)
    return cat(QUOTE, _quoted(node), QUOTE)


def _quoted(node: Node) -> Node:
    """A regex of texts as the regex of their forms within the quotes of a string."""
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
