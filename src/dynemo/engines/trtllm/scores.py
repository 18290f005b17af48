"""TensorRT-LLM's log probabilities: for each token a dict of ids, or the chosen one's number."""

from typing import Any

from dynemo.messages.answer import Scores
from dynemo.messages.request import Request
from dynemo.messages.scores import pack_score


def scores_of(request: Request, output: Any, start: int) -> Scores | None:
    """Returns the scores of the tokens of an output from `start` on; None if none are wanted."""
    if request.logprobs is None:
        return None
    each = zip(output.token_ids[start:], (output.logprobs or ())[start:], strict=False)
    return Scores([_score(token_id, found, request.logprobs) for token_id, found in each])


def _score(chosen: int, found: Any, likeliest: int) -> bytes:
    if isinstance(found, float):  # of the C++ runtime
        return pack_score(chosen, found)
    if chosen not in found:
        return b""
    ranked = sorted(found.items(), key=lambda item: item[1].logprob, reverse=True)
    top = [(token_id, each.logprob) for token_id, each in ranked[:likeliest]]
    return pack_score(chosen, found[chosen].logprob, top)
