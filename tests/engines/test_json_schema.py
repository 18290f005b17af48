import re
from importlib.metadata import requires
from typing import Any

import pytest
from msgspec import json

from dynemo.engines.json_schema import NEEDS, check_schema, check_size
from dynemo.environments.variants import variants_of
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
        {"multipleOf": 0},  # wrong, and not too large
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
        check_schema(json.encode(schema).decode())
    assert caught.value.param == "response_format"


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ('{"type":"objekt"}', "cannot be followed: Invalid type: objekt."),
        ('{"type":"string","pattern":"(("}', "regex parse error: unclosed group."),
        ('{"$ref":"#"}', "no answer could even begin."),
        ('{"enum":[]}', "Unsatisfiable schema"),
    ],
)
def test_what_is_wrong_in_a_schema_is_said(schema: str, said: str) -> None:
    with pytest.raises(RequestError, match=re.escape(said)):
        check_schema(schema)


def test_whoever_installs_llama_cpp_gets_what_checks_schemas() -> None:
    assert NEEDS in (requires("dynemo-run") or [])
    for variant in variants_of("llama_cpp"):
        assert NEEDS in variant.requirements
