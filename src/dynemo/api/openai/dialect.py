"""OpenAI's dialect: its paths, and the functions behind them."""

from dynemo.api.dialect import Dialect, Operation
from dynemo.api.openai.chat import read_chat_call
from dynemo.api.openai.embeddings import read_embeddings_call
from dynemo.api.openai.errors import describe, describe_in_stream
from dynemo.api.openai.models import list_models, show_model
from dynemo.api.openai.openapi import document
from dynemo.api.openai.write import CHAT_PREFIX

OPENAI = Dialect(
    name="openai",
    prefix="/v1/",
    operations={
        "/v1/chat/completions": Operation("chat completion", read_chat_call, CHAT_PREFIX),
        "/v1/embeddings": Operation("embeddings", read_embeddings_call),
    },
    lookups={"/v1/models": list_models, "/v1/models/": show_model},
    fail=describe,
    fail_stream=describe_in_stream,
    documentation=document,
)
