"""`GET /openapi.json`: made from the types that the dialects decode and encode."""

from typing import Any

import msgspec

from dynemo import __version__
from dynemo.api.dialect import Dialect, Lookup, Operation
from dynemo.api.dialects import DIALECTS
from dynemo.http.exchange import Exchange
from dynemo.http.health import HealthReport

_REF = "#/components/schemas/{name}"
_STATUSES = {
    400: "A field is wrong or not supported; the error names it.",
    404: "The model does not exist.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is compressed.",
    429: "There is no room for the request now; `Retry-After` says when to try again.",
    500: "The engine failed.",
    502: "The engine ended.",
    503: "No instance can take the request now; `Retry-After` says when to try again.",
}
_STREAM = (
    "The answer. With `stream`, each event's data is one chunk; an error after the headers is an "
    "event whose data is an error."
)


class OpenApi:
    def __init__(self) -> None:
        self._body = b""

    async def __call__(self, exchange: Exchange) -> None:
        if not self._body:
            self._body = msgspec.json.encode(build())
        await exchange.reply(self._body)


def build() -> dict[str, Any]:
    """The document, OpenAPI 3.1."""
    types: list[type] = [HealthReport]
    paths: dict[str, Any] = {}
    for dialect in DIALECTS:
        types.append(dialect.error)
        for path, operation in dialect.operations.items():
            types += [operation.request, operation.response]
            types += [] if operation.event is None else [operation.event]
            paths[path] = {"post": _operation(dialect, operation)}
        for path, lookup in dialect.lookups.items():
            types.append(lookup.response)
            paths[f"{path}{{id}}" if path.endswith("/") else path] = {
                "get": _lookup(dialect, lookup, has_id=path.endswith("/"))
            }
    _, schemas = msgspec.json.schema_components(types, ref_template=_REF)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dynemo-run",
            "version": __version__,
            "description": "The APIs of the models that this process serves; a tag names each.",
        },
        "paths": paths | _own_paths(),
        "components": {"schemas": schemas},
    }


def _operation(dialect: Dialect, operation: Operation) -> dict[str, Any]:
    content = _json(operation.response)
    if operation.event is not None:
        content |= {"text/event-stream": {"schema": _ref(operation.event)}}
    return {
        "operationId": operation.id,
        "tags": [dialect.name],
        "summary": operation.summary,
        "requestBody": {"required": True, "content": _json(operation.request)},
        "responses": {
            "200": {
                "description": operation.summary if operation.event is None else _STREAM,
                "content": content,
            },
            **_errors(dialect, *_STATUSES),
        },
    }


def _lookup(dialect: Dialect, lookup: Lookup, *, has_id: bool) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": lookup.id,
        "tags": [dialect.name],
        "summary": lookup.summary,
        "responses": {"200": {"description": lookup.summary, "content": _json(lookup.response)}},
    }
    if has_id:
        described["parameters"] = [
            {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
        ]
        described["responses"] |= _errors(dialect, 404)
    return described


def _errors(dialect: Dialect, *statuses: int) -> dict[str, Any]:
    return {
        str(status): {"description": _STATUSES[status], "content": _json(dialect.error)}
        for status in statuses
    }


def _own_paths() -> dict[str, Any]:
    return {
        "/health": {"get": _health()},
        "/live": {"get": _text("getLive", "200 while the process lives.", "application/json")},
        "/metrics": {"get": _text("getMetrics", "Prometheus metrics.", "text/plain")},
        "/openapi.json": {"get": _text("getOpenApi", "This document.", "application/json")},
        "/": {"get": _text("getPage", "A page for people.", "text/html")},
    }


def _health() -> dict[str, Any]:
    return {
        "operationId": "getHealth",
        "summary": "Whether a request would be served now, and by which instances.",
        "responses": {
            "200": {"description": "It would.", "content": _json(HealthReport)},
            "503": {"description": "It would not.", "content": _json(HealthReport)},
        },
    }


def _text(operation: str, summary: str, content_type: str) -> dict[str, Any]:
    return {
        "operationId": operation,
        "summary": summary,
        "responses": {"200": {"description": summary, "content": {content_type: {}}}},
    }


def _json(kind: type) -> dict[str, Any]:
    return {"application/json": {"schema": _ref(kind)}}


def _ref(kind: type) -> dict[str, str]:
    return {"$ref": _REF.format(name=kind.__name__)}
