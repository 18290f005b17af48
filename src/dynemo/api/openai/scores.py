"""Writes log probabilities, and the running usage of a stream. Pure."""

from collections.abc import Sequence

import msgspec

from dynemo.api.openai.safe import safe
from dynemo.api.openai.score_types import (
    ChoiceScores,
    LikelyToken,
    PromptScores,
    PromptToken,
    ScoredToken,
)
from dynemo.messages.answer import TokenLogprob

_encode = msgspec.json.encode

_USAGE = b',"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}'


def choice_scores(entries: Sequence[TokenLogprob]) -> ChoiceScores | None:
    """None without entries."""
    if not entries:
        return None
    return ChoiceScores(content=[_scored(entry) for entry in entries])


def chunk_scores(entries: Sequence[TokenLogprob]) -> bytes:
    """The value of `logprobs` in a chunk."""
    return safe(_encode(choice_scores(entries)))


def prompt_scores(entries: Sequence[TokenLogprob | None]) -> PromptScores:
    """The chosen token comes first in each place, then the likeliest ones."""
    return [None if entry is None else _place(entry) for entry in entries]


class RunningUsage:
    """The usage so far of each choice, for a client that wants it in every chunk."""

    def __init__(self, prompt_tokens: int, choices: int) -> None:
        self._prompt_tokens = prompt_tokens
        self._completion_tokens = [0] * choices

    def add(self, index: int, tokens: int) -> None:
        self._completion_tokens[index] += tokens

    def settle(self, index: int, tokens: int) -> None:
        """Takes the engine's own count, at the end."""
        self._completion_tokens[index] = max(self._completion_tokens[index], tokens)

    def member(self, index: int) -> bytes:
        """The member of a chunk of this choice, with a comma before it."""
        prompt, completion = self._prompt_tokens, self._completion_tokens[index]
        return _USAGE % (prompt, completion, prompt + completion)


def _scored(entry: TokenLogprob) -> ScoredToken:
    return ScoredToken(
        token=entry.text,
        logprob=entry.logprob,
        bytes=list(entry.bytes),
        top_logprobs=[_likely(other) for other in entry.top],
    )


def _likely(entry: TokenLogprob) -> LikelyToken:
    return LikelyToken(token=entry.text, logprob=entry.logprob, bytes=list(entry.bytes))


def _place(entry: TokenLogprob) -> dict[str, PromptToken]:
    ranks = {other.id: rank for rank, other in enumerate(entry.top, 1)}
    return {
        str(each.id): PromptToken(
            logprob=each.logprob, rank=ranks.get(each.id), decoded_token=each.text
        )
        for each in (entry, *entry.top)
    }
