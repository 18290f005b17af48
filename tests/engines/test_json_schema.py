import re
from typing import Any

import pytest
from msgspec import json

from dynemo.engines.json_schema import check_size
from dynemo.errors import RequestError


def _many(count: int, bound: int) -> dict[str, Any]:
    arrays = {str(n): {"type": "array", "maxItems": bound, "minItems": 1} for n in range(count)}
    return {"type": "object", "properties": arrays}


@pytest.mark.parametrize(
    "schema",
    [
        True,
        _many(20, 1000),
        {"type": "string", "maxLength": 10**9},
        {"type": "object", "properties": {"maxItems": {"type": "integer", "multipleOf": 60}}},
        {"anyOf": [{"multipleOf": 7}, {"multipleOf": 0.01}, {"multipleOf": 1000}]},
        {"multipleOf": 0},  # invalid, but not too large
    ],
)
def test_a_size_that_an_engine_can_follow(schema: Any) -> None:
    check_size(json.encode(schema).decode())


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "array", "maxItems": 10**9}, "'minItems' and 'maxItems' may be 20000 in sum"),
        ({"items": [{"minItems": 20_001}]}, "'minItems' and 'maxItems' may be 20000 in sum"),
        (_many(21, 1000), "'minItems' and 'maxItems' may be 20000 in sum"),
        ({"multipleOf": 1_000_003}, "'multipleOf' may count with 100000 remainders"),
        ({"multipleOf": 1e300}, "'multipleOf' may count with 100000 remainders"),
        ({"multipleOf": 0.123457}, "'multipleOf' may count with 100000 remainders"),
        (
            {"allOf": [{"multipleOf": 1009}, {"multipleOf": 1013}]},
            "'multipleOf' may count with 100000 remainders",
        ),
    ],
    ids=str,
)
def test_a_size_that_would_take_an_engine_from_others(schema: Any, said: str) -> None:
    with pytest.raises(RequestError, match=re.escape(said)) as caught:
        check_size(json.encode(schema).decode())
    assert caught.value.param == "guide"
