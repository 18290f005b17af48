"""Reads what a request wants to know of its answer, and where the answer ends."""

from typing import Any

from dynemo.api.openai.types import ChatRequest
from dynemo.errors import RequestError


def read_detail(asked: ChatRequest) -> dict[str, Any]:
    """Fields of `Ask`. Raises RequestError."""
    _check_usage(asked)
    if asked.best_of is not None and asked.best_of != (asked.n or 1):
        raise RequestError(
            f"Invalid 'best_of': all choices are returned, so it must be {asked.n or 1}, as 'n'.",
            param="best_of",
            detail="invalid_value",
        )
    if asked.top_logprobs and not asked.logprobs:
        raise RequestError("'top_logprobs' needs 'logprobs' to be true.", param="top_logprobs")
    if asked.prompt_logprobs is not None and asked.stream:
        raise RequestError(
            "'prompt_logprobs' is not available in a stream.", param="prompt_logprobs"
        )
    return {
        "logprobs": asked.top_logprobs or 0 if asked.logprobs else None,
        "prompt_logprobs": asked.prompt_logprobs,
        "min_tokens": asked.min_tokens or None,
        "stop_ids": asked.stop_token_ids or None,
        "include_stop": asked.include_stop_str_in_output,
    }


def wants_running_usage(asked: ChatRequest) -> bool:
    """Whether each chunk of the stream carries the usage so far."""
    return asked.stream_options is not None and bool(asked.stream_options.continuous_usage_stats)


def _check_usage(asked: ChatRequest) -> None:
    options = asked.stream_options
    if options is not None and options.continuous_usage_stats and not options.include_usage:
        raise RequestError(
            "'stream_options.continuous_usage_stats' needs 'include_usage' to be true.",
            param="stream_options.continuous_usage_stats",
        )
