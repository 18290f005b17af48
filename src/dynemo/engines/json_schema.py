"""JSON schemas, checked before an engine that holds its answer to them is asked."""

from decimal import Decimal
from math import lcm
from typing import Any

from msgspec import json

from dynemo.errors import RequestError, UnsupportedField

GUIDE_FIELD = "response_format"
#: What llama.cpp is built with (its `common/CMakeLists.txt`); a newer one lets more through.
NEEDS = "llguidance==1.0.1"
_WHERE = "failed to compile JSON schema: "
#: Items that the arrays of a schema may name in their bounds, together. The engines' builds of
#: llguidance write each one out, and fail at twice as many; at a billion they take all memory.
_MOST_ITEMS = 20_000
#: The remainders that `multipleOf` counts with, a state each: ten times as many hold up the answers
#: of all others for seconds.
_MOST_REMAINDERS = 100_000


def check_size(schema: str) -> None:
    """Raises RequestError for a schema that would take an engine's memory, or its time from all
    others."""
    items, remainders = 0, 1
    left = [json.decode(schema)]
    while left:
        part = left.pop()
        if isinstance(part, list):
            left += part
        elif isinstance(part, dict):
            left += part.values()
            items += max(_count(part.get("minItems")), _count(part.get("maxItems")))
            remainders = lcm(remainders, _numerator(part.get("multipleOf")))
            if items > _MOST_ITEMS:
                raise _refused(f"'minItems' and 'maxItems' may be {_MOST_ITEMS} in sum")
            if remainders > _MOST_REMAINDERS:
                raise _refused(f"'multipleOf' may count with {_MOST_REMAINDERS} remainders")


def check_schema(schema: str) -> None:
    """Raises RequestError, with the reason, for a schema that cannot be followed.

    llama.cpp follows schemas with llguidance and, where that refuses one, logs so and answers
    unbound: the same library is asked here first, in the version that llama.cpp is built with.
    """
    check_size(schema)
    try:
        from llguidance import LLMatcher, LLTokenizer
    except ImportError:
        raise UnsupportedField(
            f"A JSON schema needs llguidance beside llama.cpp: `pip install {NEEDS}` there.",
            param=GUIDE_FIELD,
        ) from None
    grammar = f"%llguidance {{}}\nstart: %json {schema}"
    matcher = LLMatcher(LLTokenizer("byte"), grammar, log_level=0)
    if error := matcher.get_error():
        raise _refused(_reason(error))
    matcher.compute_bitmask()
    if matcher.is_error():  # as of one that is its own only part
        raise _refused("no answer could even begin")


def _reason(error: str) -> str:
    """Of a pattern it says what is wrong below a drawing of where."""
    lines = error.split(_WHERE)[-1].splitlines()
    below = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return " ".join([lines[0], *below[:1]])


def _refused(reason: str) -> RequestError:
    return RequestError(
        f"The schema in '{GUIDE_FIELD}' cannot be followed: {reason}.", param=GUIDE_FIELD
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _numerator(value: Any) -> int:
    """Of a number as a decimal fraction: 25 of 0.25. 1 where it is none, which is said later."""
    if not isinstance(value, int | float) or value <= 0:
        return 1
    _, digits, exponent = Decimal(str(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    if exponent > 9:  # not written out: it may be hundreds
        return _MOST_REMAINDERS + 1
    return int("".join(map(str, digits)) + "0" * exponent)
