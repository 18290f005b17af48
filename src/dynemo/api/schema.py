"""Pieces of an OpenAPI document that all dialects use."""

from collections.abc import Mapping
from typing import Any

REF_TEMPLATE = "#/components/schemas/{name}"


def read_operation(
    operation: str, summary: str, name: str, errors: Mapping[str, Any]
) -> dict[str, Any]:
    """An operation whose answer is the type `name`."""
    return {
        "operationId": operation,
        "summary": summary,
        "responses": {"200": {"description": summary, "content": json_content(name)}, **errors},
    }


def error_responses(statuses: Mapping[int, str], name: str) -> dict[str, Any]:
    """By status, each with the error type `name`."""
    return {
        str(status): {"description": text, "content": json_content(name)}
        for status, text in statuses.items()
    }


def json_content(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": schema_ref(name)}}


def schema_ref(name: str) -> dict[str, str]:
    return {"$ref": REF_TEMPLATE.format(name=name)}
