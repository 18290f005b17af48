"""The forms of an answer: deltas from an engine, pieces for the client.

An engine gives a `Delta` for each step. `answer/` turns deltas into pieces, which a dialect writes.
"""

from typing import Literal

from msgspec import Struct

#: Why a sequence ended. `stop`: an EOS id or a stop string; `length`: the budget or the context;
#: `tool_calls`: the model called tools.
FinishReason = Literal["stop", "length", "tool_calls"]


class Finish(Struct, frozen=True, array_like=True):
    """How a sequence ended, in the engine's own count.

    It travels as an array: positions are frozen, and a new field goes to the end. A new reason
    needs a new version of the protocol, see `wire/versions.py`.
    """

    reason: FinishReason
    prompt_tokens: int
    completion_tokens: int  #: every token generated, a final EOS included
    cached_tokens: int = 0  #: of the prompt, found in the engine's cache
    reasoning_tokens: int = 0  #: of `completion_tokens`
    #: The stop string that ended it, or the id of the client's own that did. None after an EOS id.
    matched: str | int | None = None


class Scores(Struct, frozen=True, array_like=True):
    """Log probabilities, packed as `messages/scores.py` describes."""

    tokens: list[bytes] = []  #: one for each token of the delta
    prompt: list[bytes] = []  #: one for each token of the prompt, the first empty; given once


class Delta(Struct, frozen=True, array_like=True):
    """The output of some decoding steps for one sequence: ids, or texts from a text engine.

    The last delta of a sequence has `finish`. It travels as an array whose positions are frozen:
    the last one of a stream travels as `FinalDelta`, which has five of these, then `load`, then
    the others. A new field goes to the end of both.
    """

    token_ids: list[int] = []
    texts: list[str] = []  #: one for each token; empty for a token that does not end a character
    finish: Finish | None = None
    cached_tokens: int = 0  #: of the prompt; given once, if the engine knows before its finish
    #: 32-bit floats, little-endian; with the finish of a request that asks for an embedding.
    embedding: bytes = b""
    scores: Scores | None = None  #: if the request asks for log probabilities


class TokenLogprob(Struct, frozen=True):
    """How likely one token was, and the likeliest others in its place.

    `text` is what the token adds to the answer. It is empty for a token that does not end a
    character; the last token of that character has it.
    """

    text: str
    logprob: float  #: natural logarithm
    bytes: bytes  #: of the token, which may be part of a character
    top: "tuple[TokenLogprob, ...]" = ()
    id: int = -1  #: -1: not known


class TextPiece(Struct, frozen=True, tag="text"):
    """`tokens` counts the ids that it stands for; the text may be empty while text is held back."""

    index: int  #: of the choice
    text: str
    tokens: int
    #: If they were asked for: one for each token of which `text` has something. The texts of a
    #: choice's logprobs, joined, are its texts joined.
    logprobs: tuple[TokenLogprob, ...] = ()


class ReasoningPiece(Struct, frozen=True, tag="reasoning"):
    index: int
    text: str
    tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()


class ToolCallPiece(Struct, frozen=True, tag="tool_call"):
    """A tool call has started. Its arguments follow."""

    index: int
    call: int  #: its number within the choice, from 0
    id: str
    name: str


class ArgumentsPiece(Struct, frozen=True, tag="arguments"):
    """A fragment of a call's arguments."""

    index: int
    call: int
    text: str
    tokens: int


class EmbeddingPiece(Struct, frozen=True, tag="embedding"):
    index: int  #: of the prompt
    vector: bytes  #: 32-bit floats, little-endian


class ScorePiece(Struct, frozen=True, tag="score"):
    index: int  #: of the prompt
    score: float


class PromptPiece(Struct, frozen=True, tag="prompt"):
    """How likely each token of the prompt was. The first one has no log probability: None."""

    index: int  #: of the choice
    logprobs: tuple[TokenLogprob | None, ...]


class FinishPiece(Struct, frozen=True, tag="finish"):
    """The last piece of a choice."""

    index: int
    finish: Finish


Piece = (
    TextPiece
    | ReasoningPiece
    | ToolCallPiece
    | ArgumentsPiece
    | EmbeddingPiece
    | ScorePiece
    | PromptPiece
    | FinishPiece
)


class Usage(Struct, frozen=True):
    """The tokens that one request took, over all its choices."""

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int = 0  #: of the prompt
    reasoning_tokens: int = 0  #: of `completion_tokens`
