"""Errors as OpenAI's error object: its types and its codes."""

import msgspec

from dynemo.api.openai.types import ErrorBody, ErrorDetail
from dynemo.errors import DynemoError, RequestError, UsageError
from dynemo.limits import ERROR_CHARACTERS, SHOWN_CHARACTERS
from dynemo.spelling import shortened

#: OpenAI's codes for our own. Any other code is its own name.
_CODES = {
    "bad_request": None,
    "usage": None,
    "unsupported_field": "unsupported_parameter",
    "unknown_model": "model_not_found",
    "unauthenticated": "invalid_api_key",
    "unknown_path": "unknown_url",
    "wrong_method": "method_not_supported",
    "body_too_slow": "request_timeout",
    "body_too_large": "request_too_large",
}


def describe(error: DynemoError) -> bytes:
    """The body of an error."""
    is_clients = isinstance(error, RequestError | UsageError)
    detail = ErrorDetail(
        message=shortened(str(error), ERROR_CHARACTERS),
        type="invalid_request_error" if is_clients else "server_error",
        param=shortened(error.param, SHOWN_CHARACTERS) if error.param else None,
        code=error.detail or _CODES.get(error.code, error.code),
    )
    return msgspec.json.encode(ErrorBody(detail))


def describe_in_stream(error: DynemoError) -> bytes:
    """The last event of a stream that breaks off."""
    return b"data: %b\n\n" % describe(error)
