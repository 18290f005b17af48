"""Errors on their way between two processes.

An error travels by its code, which never changes its meaning. Protocol 1 reads the name of its
class instead, so the nearest name that protocol 1 knows travels too. A reader looks for the code
first, then for the name, and else takes an EngineError: an error of a later release keeps what it
means for retries and for migration.
"""

import logging

from msgspec import DecodeError, msgpack

from dynemo import errors
from dynemo.errors import DynemoError, EngineError, RequestError, Unavailable, WireError
from dynemo.foreign import msgpack_decoder
from dynemo.limits import ERROR_CHARACTERS
from dynemo.messages.wire import Failure
from dynemo.spelling import shortened

log = logging.getLogger("dynemo.engine")

#: The names that protocol 1 knows. Frozen: a class of `errors.py` may get another name, and a new
#: class travels by the name of its nearest base here.
PROTOCOL_1 = {
    "internal_error": "DynemoError",
    "usage": "UsageError",
    "invalid_model": "ModelError",
    "engine_not_installed": "EngineNotInstalled",
    "bad_request": "RequestError",
    "unsupported_field": "UnsupportedField",
    "context_length_exceeded": "ContextLengthExceeded",
    "unknown_model": "UnknownModel",
    "body_too_large": "BodyTooLarge",
    "unavailable": "Unavailable",
    "instance_gone": "InstanceGone",
    "instance_silent": "InstanceSilent",
    "request_plane_away": "PlaneAway",
    "engine_error": "EngineError",
    "engine_lost": "EngineLost",
    "engine_not_loaded": "EngineNotLoaded",
    "slow_reader": "SlowReader",
    "protocol_error": "WireError",
}
_CODES = {name: code for code, name in PROTOCOL_1.items()}
_CLASSES: dict[str, type[DynemoError]] = {
    item.code: item
    for item in vars(errors).values()
    if isinstance(item, type) and issubclass(item, DynemoError)
}

_encode = msgpack.Encoder().encode
_decode = msgpack_decoder(Failure)


def encode_error(error: BaseException) -> bytes:
    """A `Failure`. An exception that is not ours becomes an EngineError."""
    if not isinstance(error, DynemoError):
        reason = f"{type(error).__name__}: {error}".rstrip(". :")
        error = EngineError(f"The engine failed: {reason}.")
    failure = Failure(
        error=_protocol_1_name(type(error)),
        message=shortened(str(error), ERROR_CHARACTERS),
        param=error.param,
        trace=error.trace,
        code=error.code,
        retry_after=error.retry_after if isinstance(error, Unavailable) else None,
    )
    return _encode(failure)


def decode_error(body: bytes) -> DynemoError:
    """The error that the other process raised. Logs its trace. Raises WireError."""
    try:
        failure = _decode(body)
    except DecodeError as error:
        raise WireError(f"The body of an ERROR frame does not decode: {error}.") from error
    if failure.trace:
        log.error("%s", failure.trace)
    code = failure.code if failure.code in _CLASSES else _CODES.get(failure.error, "")
    kind = _CLASSES.get(code, EngineError)
    if issubclass(kind, RequestError):
        return kind(failure.message, param=failure.param)
    if issubclass(kind, Unavailable) and failure.retry_after is not None:
        return kind(failure.message, retry_after=failure.retry_after)
    return kind(failure.message)


def reason_of(body: bytes) -> str:
    """The message of an ERROR on stream 0, whose body may be empty."""
    try:
        return str(decode_error(body)) if body else ""
    except WireError:
        return ""


def _protocol_1_name(kind: type[DynemoError]) -> str:
    codes = (getattr(base, "code", "") for base in kind.__mro__)
    return next(PROTOCOL_1[code] for code in codes if code in PROTOCOL_1)
