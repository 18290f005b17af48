import re
from typing import Any

import pytest
from msgspec import json

from dynemo.engines.guides.json_schema import check_size, written_out
from dynemo.engines.guides.verdict import GuideRefused


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
        ({"maxItems": 1e9}, "'minItems' and 'maxItems' may be 20000 in sum"),
        ({"minLength": 10**9}, "'minLength' may be 10000"),
        ({"const": "x" * 10_001}, "a string in it may have 10000 characters"),
        ({"properties": {"x" * 10_001: {}}}, "a string in it may have 10000 characters"),
        ({"pattern": "^((x{1000}){1000})$"}, "'pattern' may have 10000 characters when repeated"),
        ({"multipleOf": 1e300}, "'multipleOf' may count with 100000 remainders"),
        ({"multipleOf": 0.123457}, "'multipleOf' may count with 100000 remainders"),
        (
            {"allOf": [{"multipleOf": 1009}, {"multipleOf": 1013}]},
            "'multipleOf' may count with 100000 remainders",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_size_that_would_take_an_engine_from_others(schema: Any, said: str) -> None:
    with pytest.raises(GuideRefused, match=re.escape(said)):
        check_size(json.encode(schema).decode())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 101 + "]" * 101, "it may be nested 100 deep"),
        ("[" * 100_000 + "]" * 100_000, "not valid JSON (It is nested too deeply)"),
        ('{"type":', "not valid JSON"),
        ('{"multipleOf":1e400}', "not valid JSON"),
    ],
    ids=["deep", "very deep", "cut off", "too large a number"],
)
def test_a_text_that_is_no_schema(text: str, said: str) -> None:
    with pytest.raises(GuideRefused, match=re.escape(said)):
        check_size(text)


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("", 0),
        ("^abc$", 5),
        ("x{1000}", 1000),
        ("(x{1000}){1000}", 1_000_000),
        ("((x{10}y){2,10}z){3}", 333),
        ("[a-z]{5}|[]x]{2}", 7),
        (r"\d{3}-\d{4}", 8),
        (r"\({7}", 7),
        ("a{2}{3}", 6),
        ("(((", 0),
        (")))a{", 5),
        ("a{9999999999999}", 1),
        ("a*b+c?", 3),
    ],
)
def test_a_pattern_counts_with_its_repetitions(pattern: str, count: int) -> None:
    assert written_out(pattern) == count
