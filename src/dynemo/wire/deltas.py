"""The bodies of DATA, END and PONG. Pure."""

from collections.abc import Sequence
from typing import Any

from msgspec import ValidationError, msgpack, structs

from dynemo.foreign import as_decode_error, decode_msgpack, msgpack_decoder
from dynemo.messages.answer import Delta, Scores
from dynemo.messages.records import Load, LoadReport
from dynemo.messages.wire import FinalDelta

#: The reasons of a `Finish` that protocol 1 knows. A stream of protocol 1 that ends for another
#: reason is lost to its reader.
_REASONS = ("stop", "length")

_encode = msgpack.Encoder().encode
#: Bare, because each token passes it: a wrapper would cost as much as the decoding.
_decode_delta = msgpack.Decoder(Delta).decode
_decode_report = msgpack_decoder(LoadReport)
_decode_final = msgpack_decoder(FinalDelta)


def decode_deltas(bodies: Sequence[bytes]) -> Delta:
    """The bodies of DATA frames, in order, as one delta. Raises DecodeError."""
    try:
        if len(bodies) == 1:
            return _decode_delta(bodies[0])
        deltas = [_decode_delta(body) for body in bodies]
    except RecursionError as error:
        raise as_decode_error(error) from None
    ids = [token_id for delta in deltas for token_id in delta.token_ids]
    texts = [text for delta in deltas for text in delta.texts]
    cached = max([delta.cached_tokens for delta in deltas])
    scores = None
    for delta in deltas:
        if delta.scores is not None:
            scores = joined_scores(scores, delta.scores)
    return Delta(ids, texts, deltas[-1].finish, cached, deltas[-1].embedding, scores)


def joined_scores(first: Scores | None, second: Scores | None) -> Scores | None:
    """The scores of two deltas as those of one. `first` is used up."""
    if first is None or second is None:
        return first or second
    first.tokens.extend(second.tokens)
    first.prompt.extend(second.prompt)
    return first


def encode_final(delta: Delta, load: Load | None) -> bytes:
    """The body of END."""
    finish = delta.finish
    if finish is not None and finish.reason not in _REASONS:
        finish = structs.replace(finish, reason="stop")
    return _encode(
        FinalDelta(
            delta.token_ids,
            delta.texts,
            finish,
            delta.cached_tokens,
            delta.embedding,
            load,
            delta.scores,
        )
    )


def decode_final(body: bytes) -> tuple[Delta, Load | None]:
    """The last delta and the worker's load. Raises DecodeError.

    A finish whose reason this release does not know becomes `stop`. A broken stream would be asked
    of another instance, which would end for the same reason.
    """
    try:
        final = _decode_final(body)
    except ValidationError:
        final = _decode_final(_with_known_reason(body))
    delta = Delta(
        final.token_ids,
        final.texts,
        final.finish,
        final.cached_tokens,
        final.embedding,
        final.scores,
    )
    return delta, final.load


def decode_load(body: bytes) -> Load:
    """The load in a PONG: a `LoadReport`, or the `Load` of a peer of protocol 1. Raises
    DecodeError."""
    report = _decode_report(body)
    if report.streams is None:
        return Load(report.running, report.waiting, report.kv_use)
    return report


def updated_load(load: Load, final: Load) -> Load:
    """The load with what END carries, which says nothing of streams."""
    if not isinstance(load, LoadReport):
        return final
    changes = {"running": final.running, "waiting": final.waiting, "kv_use": final.kv_use}
    return structs.replace(load, **changes)


def _with_known_reason(body: bytes) -> bytes:
    match decode_msgpack(body, Any):
        case [ids, texts, [str(), *counts], *others]:
            return _encode([ids, texts, ["stop", *counts], *others])
    return body
