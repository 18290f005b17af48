"""`GET /openapi.json`: every dialect's part, and what the server itself adds."""

from typing import Any

import msgspec

from dynemo import __version__
from dynemo.api.dialects import DIALECTS
from dynemo.api.schema import REF_TEMPLATE, json_content
from dynemo.http.exchange import Exchange
from dynemo.http.health import HealthReport


class OpenApi:
    def __init__(self) -> None:
        self._body = b""

    async def __call__(self, exchange: Exchange) -> None:
        if not self._body:
            self._body = msgspec.json.encode(build())
        await exchange.reply(self._body)


def build() -> dict[str, Any]:
    """The document, OpenAPI 3.1."""
    parts = [dialect.documentation() for dialect in DIALECTS]
    types = [one for part in parts for one in part.types]
    _, schemas = msgspec.json.schema_components([*types, HealthReport], ref_template=REF_TEMPLATE)
    paths: dict[str, Any] = {}
    for part in parts:
        paths |= part.paths
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dynemo-run",
            "version": __version__,
            "description": "An OpenAI-compatible API to the models that this process serves.",
        },
        "paths": paths | _own_paths(),
        "components": {"schemas": schemas},
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
            "200": {"description": "It would.", "content": json_content("HealthReport")},
            "503": {"description": "It would not.", "content": json_content("HealthReport")},
        },
    }


def _text(operation: str, summary: str, content_type: str) -> dict[str, Any]:
    return {
        "operationId": operation,
        "summary": summary,
        "responses": {"200": {"description": summary, "content": {content_type: {}}}},
    }
