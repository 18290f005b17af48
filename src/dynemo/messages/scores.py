"""Log probabilities as they travel: packed, one value of bytes for each token.

A score is a list of pairs of a token id and its natural logarithm. The first pair is the token that
was chosen; the likeliest tokens follow, the likeliest first. Each pair has eight bytes,
little-endian: a 32-bit integer and a 32-bit float. The id -1 means that the engine does not tell
the id of the chosen token. No bytes at all: the engine has no score for this token.
"""

import math
from collections.abc import Iterable
from struct import Struct, error, iter_unpack

UNKNOWN_ID = -1

#: Stands for what is less likely than any number in use. OpenAI uses it, too.
LEAST = -9999.0

_PAIR = Struct("<if")


def pack_score(chosen: int, logprob: float, likeliest: Iterable[tuple[int, float]] = ()) -> bytes:
    """Packs the score of one token. NaN and infinity become `LEAST`."""
    pairs = [(chosen, logprob), *likeliest]
    return b"".join([_PAIR.pack(token_id, _finite(value)) for token_id, value in pairs])


def unpack_score(score: bytes) -> list[tuple[int, float]]:
    """Returns the pairs of a score. Raises ValueError if it is not one."""
    try:
        return list(iter_unpack("<if", score))
    except error as problem:
        raise ValueError(str(problem)) from None


def _finite(value: float) -> float:
    return max(value, LEAST) if math.isfinite(value) else LEAST
