"""Checks the fields of an ask that depend on each other, on the model or on the prompt. Pure."""

from msgspec import structs

from dynemo.errors import RequestError
from dynemo.limits import PROMPT_SCORES
from dynemo.messages.ask import Ask
from dynemo.messages.request import Request
from dynemo.prompt.card.card import Card


def without_moot_seed(ask: Ask) -> Ask:
    """The ask without its seed if the likeliest token is taken each time: nothing is drawn then."""
    return structs.replace(ask, seed=None) if ask.temperature == 0 else ask


def check_ids(ask: Ask, card: Card) -> None:
    """Raises RequestError for a token id that the model does not have."""
    size = card.tokenizer.vocab_size
    for name in ("logit_bias", "stop_ids"):
        for token_id in getattr(ask, name) or ():
            if not 0 <= token_id < size:
                raise RequestError(
                    f"The request names the token {token_id}, but {card.name} has ids 0 to "
                    f"{size - 1}.",
                    param=name,
                )


def check_counts(ask: Ask, request: Request) -> None:
    """Raises RequestError for numbers that exclude each other."""
    prompt_tokens = len(request.token_ids)
    if request.min_tokens > request.max_tokens:
        raise RequestError(
            f"The answer shall have at least {request.min_tokens} tokens, but it may have at most "
            f"{request.max_tokens}.",
            param="min_tokens",
        )
    values = prompt_tokens * ((ask.prompt_logprobs or 0) + 1)
    if ask.prompt_logprobs is not None and values > PROMPT_SCORES:
        raise RequestError(
            f"The prompt has {prompt_tokens} tokens, so {values:,} log probabilities are wanted. "
            f"At most {PROMPT_SCORES:,} are possible. Ask for fewer of each token.",
            param="prompt_logprobs",
        )
