"""The engine API, version 1: what an engine of your own (`out=FILE.py`) gets and may hold.

A file is an engine if it has this function. It is called once for each request, for many requests
at the same time, in one event loop:

    async def generate(request):                           # yields str: text
    async def generate(request) -> AsyncIterator[int]:     # yields token ids, or lists of them

`request` is an `EngineRequest`. Each `str` counts as one token. The answer ends when the
function returns, after `max_tokens` tokens, or with an id of `stop_ids`. A client that goes away
closes the generator. An exception is the error of that one request.

A file may also hold:

    load(model)     called once before the first request, with MODEL's path; plain or async
    GIVES           "tokens" or "text", if the annotation should not decide
    SAMPLING        names of the settings that it honours, out of `SETTINGS`; others are then
                    refused by name. Without it, every setting is let through.
    API             the version of this module that it was written for: 1

Within a version, fields are only added, and a field keeps its name and its meaning. This module is
separate from what travels between processes, so that either can change alone. It needs only
`msgspec` besides the standard library.
"""

from typing import Any

from msgspec import Struct

VERSION = 1

#: What `SAMPLING` may name.
SETTINGS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "ignore_eos",
)


class SamplingSettings(Struct, frozen=True, kw_only=True):
    """How the client wants the next token chosen. The defaults are plain sampling."""

    temperature: float = 1.0  #: 0 is greedy
    top_p: float = 1.0
    top_k: int = 0  #: 0 is off
    min_p: float = 0.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = {}


class EngineRequest(Struct, frozen=True, kw_only=True):
    """One sequence to generate."""

    id: str  #: unique; it stands in the log too
    #: The conversation in OpenAI's form; each `content` is one text.
    messages: list[dict[str, Any]]
    #: The tools that the answer may call, in OpenAI's form. A call is written as the model's chat
    #: template renders one; the server reads it from the text.
    tools: list[dict[str, Any]] = []
    prompt: str  #: the same conversation, rendered by the model's chat template
    token_ids: list[int]  #: of `prompt`
    max_tokens: int  #: at least 1; tokens after that are dropped
    sampling: SamplingSettings
    #: The ids that end the answer: the client's, and the model's own unless the client ignores
    #: these.
    stop_ids: list[int]
    ignore_eos: bool  #: the client wants `max_tokens` tokens, whatever the model says
    continued: int  #: the last so many of `token_ids` are an answer that another instance began
    cache_salt: str = ""  #: only requests with the same salt may share a prefix cache
    traceparent: str  #: W3C trace context; empty if the client sent none
