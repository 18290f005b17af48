"""OpenAI's dialect: its paths, and the functions behind them."""

from dynemo.api.dialect import Dialect, Lookup, Operation
from dynemo.api.openai import types
from dynemo.api.openai.chat import read_chat_call
from dynemo.api.openai.embeddings import read_embeddings_call
from dynemo.api.openai.errors import describe, describe_in_stream
from dynemo.api.openai.models import list_models, show_model
from dynemo.api.openai.write import CHAT_PREFIX

OPENAI = Dialect(
    name="openai",
    prefix="/v1/",
    operations={
        "/v1/chat/completions": Operation(
            id="createChatCompletion",
            name="chat completion",
            summary="Answer a conversation, whole or as a stream of server-sent events.",
            read=read_chat_call,
            request=types.ChatRequest,
            response=types.ChatCompletion,
            event=types.ChatCompletionChunk,
            id_prefix=CHAT_PREFIX,
            fields={
                "turns": "messages",
                "stop_ids": "stop_token_ids",
                "include_stop": "include_stop_str_in_output",
            },
        ),
        "/v1/embeddings": Operation(
            id="createEmbedding",
            name="embeddings",
            summary="Embed texts.",
            read=read_embeddings_call,
            request=types.EmbeddingRequest,
            response=types.EmbeddingList,
            fields={"prompts": "input"},
        ),
    },
    lookups={
        "/v1/models": Lookup("listModels", "The models served.", list_models, types.ModelList),
        "/v1/models/": Lookup("getModel", "One model.", show_model, types.Model),
    },
    fail=describe,
    fail_stream=describe_in_stream,
    error=types.ErrorBody,
)
