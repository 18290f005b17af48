"""Limits of JSON schemas, checked before an engine gets one for its answer."""

from decimal import Decimal
from math import lcm
from typing import Any

from dynemo.errors import RequestError
from dynemo.foreign import decode_json
from dynemo.limits import SCHEMA_ITEMS, SCHEMA_REMAINDERS

GUIDE_FIELD = "guide"


def check_size(schema: str) -> None:
    """Raises RequestError for a schema that would exhaust an engine's memory or time."""
    items, remainders = 0, 1
    left = [decode_json(schema, Any)]
    while left:
        part = left.pop()
        if isinstance(part, list):
            left += part
        elif isinstance(part, dict):
            left += part.values()
            items += max(_count(part.get("minItems")), _count(part.get("maxItems")))
            remainders = lcm(remainders, _numerator(part.get("multipleOf")))
            if items > SCHEMA_ITEMS:
                raise refused(f"'minItems' and 'maxItems' may be {SCHEMA_ITEMS} in sum")
            if remainders > SCHEMA_REMAINDERS:
                raise refused(f"'multipleOf' may count with {SCHEMA_REMAINDERS} remainders")


def refused(reason: str) -> RequestError:
    """`reason` is a clause without a full stop."""
    return RequestError(f"The JSON schema cannot be followed: {reason}.", param=GUIDE_FIELD)


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _numerator(value: Any) -> int:
    """Returns the numerator of a number as a decimal fraction: 25 for 0.25.

    Returns 1 for an invalid value, which is reported later.
    """
    if not isinstance(value, int | float) or value <= 0:
        return 1
    _, digits, exponent = Decimal(str(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    if exponent > 9:  # not written out: it may be hundreds
        return SCHEMA_REMAINDERS + 1
    return int("".join(map(str, digits)) + "0" * exponent)
