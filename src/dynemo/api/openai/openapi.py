"""OpenAI's part of `/openapi.json`, made from the types that decode and encode it."""

from typing import Any

from dynemo.api.dialect import Documentation
from dynemo.api.openai import types
from dynemo.api.schema import error_responses, json_content, read_operation, schema_ref

_STATUSES = {
    400: "A field is wrong or not supported; `param` names it.",
    404: "The model does not exist.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    500: "The engine failed.",
    502: "The engine ended.",
    503: "No instance can take the request now; `Retry-After` says when to try again.",
}


def document() -> Documentation:
    return Documentation(
        paths={
            "/v1/chat/completions": {"post": _chat()},
            "/v1/embeddings": {
                "post": {
                    **_read("createEmbedding", "Embed texts.", "EmbeddingList", _STATUSES),
                    "requestBody": {"required": True, "content": json_content("EmbeddingRequest")},
                }
            },
            "/v1/models": {"get": _read("listModels", "The models served.", "ModelList", {})},
            "/v1/models/{id}": {
                "get": {
                    **_read("getModel", "One model.", "Model", {404: _STATUSES[404]}),
                    "parameters": [
                        {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
                    ],
                }
            },
        },
        types=(
            types.ChatRequest,
            types.ChatCompletion,
            types.ChatCompletionChunk,
            types.EmbeddingRequest,
            types.EmbeddingList,
            types.Model,
            types.ModelList,
            types.ErrorBody,
        ),
    )


def _chat() -> dict[str, Any]:
    return {
        "operationId": "createChatCompletion",
        "summary": "Answer a conversation, whole or as a stream of server-sent events.",
        "requestBody": {"required": True, "content": json_content("ChatRequest")},
        "responses": {
            "200": {
                "description": "The answer. With `stream`, each event's data is one chunk, and the "
                "last event's is `[DONE]`; an error after the headers is an event whose data is "
                "an error object.",
                "content": {
                    **json_content("ChatCompletion"),
                    "text/event-stream": {"schema": schema_ref("ChatCompletionChunk")},
                },
            },
            **error_responses(_STATUSES, "ErrorBody"),
        },
    }


def _read(operation: str, summary: str, name: str, errors: dict[int, str]) -> dict[str, Any]:
    return read_operation(operation, summary, name, error_responses(errors, "ErrorBody"))
