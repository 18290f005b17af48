"""Limits of JSON schemas that the parsers of engines do not have."""

import re
from collections.abc import Iterator
from decimal import Decimal
from math import isfinite, lcm
from typing import Any

from msgspec import DecodeError

from dynemo.engines.guides.references import is_endless
from dynemo.engines.guides.verdict import GuideRefused
from dynemo.foreign import decode_json, is_deeper
from dynemo.limits import (
    GUIDE_CHARACTERS,
    GUIDE_DEPTH,
    SCHEMA_ITEMS,
    SCHEMA_REMAINDERS,
    SHOWN_CHARACTERS,
)
from dynemo.spelling import quoted, shortened

#: A class of a regex.
_CLASS = re.compile(r"(?<!\\)((?:\\\\)*)\[(?:\\.|[^\]\\])*\]", re.DOTALL)
#: A character outside of classes that a JSON string has to escape.
_ESCAPED = re.compile(
    r'["\x00-\x1f]|\\[\\nrtfv"]|\\x(?:[01]|22|5c)|\\u00(?:[01]|22|5c)|\\[xu]\{', re.IGNORECASE
)
_LITERAL_ESCAPE = re.compile(r"\\[^dDwWsSbBpP]", re.DOTALL)


def check_size(schema: str) -> None:
    """Raises GuideRefused for a schema that would exhaust an engine's memory or time."""
    try:
        root = decode_json(schema, object)
    except DecodeError as error:
        raise GuideRefused(f"it is not valid JSON ({error})") from None
    if is_deeper(root, GUIDE_DEPTH):
        raise GuideRefused(f"it may be nested {GUIDE_DEPTH} deep")
    items, remainders = 0, 1
    for part in _parts(root):
        if isinstance(part, str) and len(part) > GUIDE_CHARACTERS:
            raise GuideRefused(f"a string in it may have {GUIDE_CHARACTERS} characters")
        if not isinstance(part, dict):
            continue
        if "$ref" in part and is_endless(root, part):
            raise GuideRefused(f"'$ref' leads back to itself at {_shown(part['$ref'])}")
        items += max(_count(part.get("minItems")), _count(part.get("maxItems")))
        remainders = lcm(remainders, _numerator(part.get("multipleOf")))
        if items > SCHEMA_ITEMS:
            raise GuideRefused(f"'minItems' and 'maxItems' may be {SCHEMA_ITEMS} in sum")
        if remainders > SCHEMA_REMAINDERS:
            raise GuideRefused(f"'multipleOf' may count with {SCHEMA_REMAINDERS} remainders")
        if _count(part.get("minLength")) > GUIDE_CHARACTERS:
            raise GuideRefused(f"'minLength' may be {GUIDE_CHARACTERS}")
        if written_out(part.get("pattern")) > GUIDE_CHARACTERS:
            raise GuideRefused(f"'pattern' may have {GUIDE_CHARACTERS} characters when repeated")
        _check_patterns(part)


def _check_patterns(schema: dict[str, Any]) -> None:
    for pattern in (schema.get("pattern"), *_keys(schema.get("patternProperties"))):
        if isinstance(pattern, str) and _is_misread(pattern):
            raise GuideRefused(
                "'pattern' may not name a quote, a backslash or a control character beside other "
                "parts"
            )


def _keys(value: Any) -> list[Any]:
    return [*value] if isinstance(value, dict) else []


def _is_misread(pattern: str) -> bool:
    """Whether llguidance allows other texts than a pattern.

    It loses the parts behind a character that JSON escapes, except in a pattern of one text.
    """
    outside = _CLASS.sub("[", pattern)
    if not _ESCAPED.search(outside):
        return False
    literal = _LITERAL_ESCAPE.sub("", outside)
    is_one_text = literal.startswith("^") and literal.endswith("$")
    return not is_one_text or any(character in "\\[](){}*+?|.^$" for character in literal[1:-1])


def written_out(pattern: Any) -> int:
    """Returns about how many characters a regex has when its repetitions are written out."""
    if not isinstance(pattern, str):
        return 0
    groups = [[0, 0]]  # of each open group: the characters before its last item, and of that item
    place = 0
    while place < len(pattern):
        character = pattern[place]
        group = groups[-1]
        if character == "(":
            groups.append([0, 0])
        elif character == ")" and len(groups) > 1:
            inner = sum(groups.pop())
            groups[-1] = [sum(groups[-1]), inner]
        elif character == "{" and (end := pattern.find("}", place)) > 0:
            times = [int(word) for word in pattern[place + 1 : end].split(",") if _is_count(word)]
            group[1] *= max([1, *times])
            place = end
        elif character not in "*+?|":
            groups[-1] = [sum(group), 1]
            if character == "[":
                place = max(place, pattern.find("]", place + 2))
            elif character == "\\":
                place += 1
        place += 1
    return sum(map(sum, groups))


def _parts(root: Any) -> Iterator[Any]:
    """Yields every value and every key in a decoded schema."""
    left = [root]
    while left:
        part = left.pop()
        yield part
        if isinstance(part, list):
            left += part
        elif isinstance(part, dict):
            left += part
            left += part.values()


def _shown(reference: Any) -> str:
    return quoted(shortened(str(reference), SHOWN_CHARACTERS))


def _is_count(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) < 10


def _count(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and isfinite(value) else 0


def _numerator(value: Any) -> int:
    """Returns the numerator of a number as a decimal fraction: 25 for 0.25.

    Returns 1 for an invalid value, which is reported later.
    """
    if not isinstance(value, int | float) or not value > 0:
        return 1
    _, digits, exponent = Decimal(str(value)).normalize().as_tuple()
    if not isinstance(exponent, int) or exponent > 9:  # infinite, or not to be written out
        return SCHEMA_REMAINDERS + 1
    return int("".join(map(str, digits)) + "0" * exponent)
