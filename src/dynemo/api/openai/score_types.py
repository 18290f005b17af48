"""Log probabilities as OpenAI and vLLM write them."""

from msgspec import Struct


class LikelyToken(Struct, frozen=True, kw_only=True):
    token: str
    logprob: float
    bytes: list[int]


class ScoredToken(LikelyToken, frozen=True, kw_only=True):
    """A token of the content. `token` is empty for a token that does not end a character: the last
    token of the character has it. `bytes` are always the token's own."""

    top_logprobs: list[LikelyToken]


class ChoiceScores(Struct, frozen=True, kw_only=True):
    content: list[ScoredToken]
    refusal: None = None


class PromptToken(Struct, frozen=True, kw_only=True):
    """A token in one place of the prompt, as vLLM writes it. `rank` is null beyond the likeliest
    tokens in the answer."""

    logprob: float
    rank: int | None
    decoded_token: str


#: By token id. The first token of a prompt has none.
PromptScores = list[dict[str, PromptToken] | None]
