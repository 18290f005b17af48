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
    matched: str | int | None = None  #: the stop string or the EOS id that ended it


class Delta(Struct, frozen=True, array_like=True):
    """The output of some decoding steps for one sequence: ids, or texts from a text engine.

    The last delta of a sequence has `finish`. It travels as an array whose five positions are
    frozen: the last one of a stream travels as `FinalDelta`, which has these five and then `load`.
    A new field goes to the end of both, in `FinalDelta` after `load`.
    """

    token_ids: list[int] = []
    texts: list[str] = []  #: one for each token; empty for a token that does not end a character
    finish: Finish | None = None
    cached_tokens: int = 0  #: of the prompt; given once, if the engine knows before its finish
    #: 32-bit floats, little-endian; with the finish of a request that asks for an embedding.
    embedding: bytes = b""


class TokenLogprob(Struct, frozen=True):
    """How likely one token was, and the likeliest others in its place."""

    text: str
    logprob: float  #: natural logarithm
    bytes: bytes  #: of the token, which may be part of a character
    top: "tuple[TokenLogprob, ...]" = ()


class TextPiece(Struct, frozen=True, tag="text"):
    """`tokens` counts the ids that it stands for; the text may be empty while text is held back."""

    index: int  #: of the choice
    text: str
    tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()  #: one for each token, if they were asked for


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
    | FinishPiece
)


class Usage(Struct, frozen=True):
    """The tokens that one request took, over all its choices."""

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int = 0  #: of the prompt
    reasoning_tokens: int = 0  #: of `completion_tokens`
