"""SGLang's log probabilities, before the temperature (`SGLANG_RETURN_ORIGINAL_LOGPROB`).

Each is a list of a logarithm, an id and a text, which is None without a tokenizer.
"""

from collections.abc import Sequence
from typing import Any

from dynemo.messages.answer import Scores
from dynemo.messages.request import Request
from dynemo.messages.scores import pack_score

_Row = Sequence[Any]


def wanted_scores(request: Request) -> dict[str, Any]:
    """Returns the arguments of `async_generate` that ask for scores."""
    if request.logprobs is None and request.prompt_logprobs is None:
        return {}
    return {
        "return_logprob": True,
        "top_logprobs_num": max(request.logprobs or 0, request.prompt_logprobs or 0),
        "logprob_start_len": -1 if request.prompt_logprobs is None else 0,
    }


def scores_of(request: Request, info: dict[str, Any], *, is_first: bool) -> Scores | None:
    """Returns the scores of one output; None if the request wants none."""
    if request.logprobs is None and request.prompt_logprobs is None:
        return None
    tokens: list[bytes] = []
    prompt: list[bytes] = []
    if request.logprobs is not None:
        tokens = _scores(info, "output", request.logprobs)
    if request.prompt_logprobs is not None and is_first:
        prompt = _scores(info, "input", request.prompt_logprobs)
    return Scores(tokens, prompt)


def _scores(info: dict[str, Any], side: str, likeliest: int) -> list[bytes]:
    rows: list[_Row] = info[f"{side}_token_logprobs"]
    tops: list[Sequence[_Row] | None] = info.get(f"{side}_top_logprobs") or [None] * len(rows)
    return [_score(row, top or (), likeliest) for row, top in zip(rows, tops, strict=False)]


def _score(row: _Row, top: Sequence[_Row], likeliest: int) -> bytes:
    logprob, token_id, *_ = row
    if logprob is None:  # the first token of a prompt
        return b""
    return pack_score(token_id, logprob, [(each[1], each[0]) for each in top[:likeliest]])
