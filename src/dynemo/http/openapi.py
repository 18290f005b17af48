"""`GET /openapi.json`: the API described from the types that decode and encode it."""

from typing import Any

import msgspec

from dynemo import __version__
from dynemo.api.openai import types
from dynemo.http.exchange import Exchange
from dynemo.http.health import HealthReport

_REF = "#/components/schemas/{name}"
_STATUSES = {
    400: "A field is wrong or not supported; `param` names it.",
    404: "The model does not exist.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    500: "The engine failed.",
    502: "The engine ended.",
    503: "No instance can take the request now; `Retry-After` says when to try again.",
}


class OpenApi:
    def __init__(self) -> None:
        self._body = b""

    async def __call__(self, exchange: Exchange) -> None:
        if not self._body:
            self._body = msgspec.json.encode(build())
        await exchange.reply(self._body)


def build() -> dict[str, Any]:
    """The document, OpenAPI 3.1."""
    _, schemas = msgspec.json.schema_components(
        [
            types.ChatRequest,
            types.ChatCompletion,
            types.ChatCompletionChunk,
            types.EmbeddingRequest,
            types.EmbeddingList,
            types.Model,
            types.ModelList,
            types.ErrorBody,
            HealthReport,
        ],
        ref_template=_REF,
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dynemo-run",
            "version": __version__,
            "description": "An OpenAI-compatible API to the models that this process serves.",
        },
        "paths": _paths(),
        "components": {"schemas": schemas},
    }


def _paths() -> dict[str, Any]:
    return {
        "/v1/chat/completions": {"post": _chat()},
        "/v1/embeddings": {
            "post": {
                **_get("createEmbedding", "Embed texts.", "EmbeddingList", _STATUSES),
                "requestBody": {"required": True, "content": _json("EmbeddingRequest")},
            }
        },
        "/v1/models": {"get": _get("listModels", "The models served.", "ModelList")},
        "/v1/models/{id}": {
            "get": {
                **_get("getModel", "One model.", "Model", {404: _STATUSES[404]}),
                "parameters": [
                    {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
                ],
            }
        },
        "/health": {"get": _health()},
        "/live": {"get": _text("getLive", "200 while the process lives.", "application/json")},
        "/metrics": {"get": _text("getMetrics", "Prometheus metrics.", "text/plain")},
        "/openapi.json": {"get": _text("getOpenApi", "This document.", "application/json")},
        "/": {"get": _text("getPage", "A page for people.", "text/html")},
    }


def _chat() -> dict[str, Any]:
    return {
        "operationId": "createChatCompletion",
        "summary": "Answer a conversation, whole or as a stream of server-sent events.",
        "requestBody": {"required": True, "content": _json("ChatRequest")},
        "responses": {
            "200": {
                "description": "The answer. With `stream`, each event's data is one chunk, and the "
                "last event's is `[DONE]`; an error after the headers is an event whose data is "
                "an error object.",
                "content": {
                    **_json("ChatCompletion"),
                    "text/event-stream": {"schema": _ref("ChatCompletionChunk")},
                },
            },
            **_errors(_STATUSES),
        },
    }


def _health() -> dict[str, Any]:
    return {
        "operationId": "getHealth",
        "summary": "Whether a request would be served now, and by which instances.",
        "responses": {
            "200": {"description": "It would.", "content": _json("HealthReport")},
            "503": {"description": "It would not.", "content": _json("HealthReport")},
        },
    }


def _get(
    operation: str, summary: str, name: str, errors: dict[int, str] | None = None
) -> dict[str, Any]:
    return {
        "operationId": operation,
        "summary": summary,
        "responses": {
            "200": {"description": summary, "content": _json(name)},
            **_errors(errors or {}),
        },
    }


def _text(operation: str, summary: str, content_type: str) -> dict[str, Any]:
    return {
        "operationId": operation,
        "summary": summary,
        "responses": {"200": {"description": summary, "content": {content_type: {}}}},
    }


def _errors(statuses: dict[int, str]) -> dict[str, Any]:
    return {
        str(status): {"description": text, "content": _json("ErrorBody")}
        for status, text in statuses.items()
    }


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": _ref(name)}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": _REF.format(name=name)}
