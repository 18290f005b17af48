"""vLLM's log probabilities. By default they are the model's own (`--logprobs-mode raw_logprobs`):
no setting of the request has been applied to them.
"""

from collections.abc import Mapping
from typing import Any

from dynemo.messages.answer import Scores
from dynemo.messages.request import Request
from dynemo.messages.scores import pack_score


def scores_of(request: Request, output: Any) -> Scores | None:
    """Returns the scores that a `RequestOutput` brings; None if the request wants none."""
    if request.logprobs is None and request.prompt_logprobs is None:
        return None
    tokens: list[bytes] = []
    prompt: list[bytes] = []
    part = output.outputs[0]
    if request.logprobs is not None:
        each = zip(part.token_ids, part.logprobs or (), strict=False)
        tokens = [_score(token_id, found, request.logprobs) for token_id, found in each]
    if request.prompt_logprobs is not None and output.prompt_logprobs:
        rows = zip(request.token_ids, output.prompt_logprobs, strict=False)
        prompt = [_score(token_id, found, request.prompt_logprobs) for token_id, found in rows]
    return Scores(tokens, prompt)


def _score(chosen: int, found: Mapping[int, Any] | None, likeliest: int) -> bytes:
    """`found` has the chosen token and the likeliest ones. The first token of a prompt has none."""
    if not found or chosen not in found:
        return b""
    ranked = sorted(found.items(), key=lambda item: item[1].logprob, reverse=True)
    top = [(token_id, each.logprob) for token_id, each in ranked[:likeliest]]
    return pack_score(chosen, found[chosen].logprob, top)
