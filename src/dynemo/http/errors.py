"""The one place where the tree of errors becomes HTTP: OpenAI's error object, and headers."""

import msgspec

from dynemo.api.openai.types import ErrorBody, ErrorDetail
from dynemo.errors import BodyTooLarge, DynemoError, RequestError, Unavailable
from dynemo.http.asgi import Header

#: nginx's status for a client that went away. It is counted and logged, and never sent.
CLIENT_GONE = 499


class ClientGone(Exception):
    """The client closed its connection; nobody is left to tell."""


class OtherSite(RequestError):
    status = 403
    code = "cross_site"


class NoSuchPath(RequestError):
    status = 404
    code = "unknown_url"


class WrongMethod(RequestError):
    status = 405
    code = "method_not_supported"

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class BodyTooSlow(RequestError):
    """The request's body stopped arriving."""

    status = 408
    code = "request_timeout"


def internal_error() -> DynemoError:
    """What a client is told about a fault of ours; the log has the rest."""
    error = DynemoError("The server had an error while processing your request.")
    error.code = "internal_error"
    return error


def describe(error: DynemoError) -> bytes:
    """OpenAI's error object."""
    detail = ErrorDetail(message=str(error), type=error.type, param=error.param, code=error.code)
    return msgspec.json.encode(ErrorBody(detail))


def headers_of(error: DynemoError) -> list[Header]:
    """What an error says besides its status and body."""
    match error:
        case Unavailable():
            return [(b"retry-after", b"%d" % error.retry_after)]
        case WrongMethod():
            return [(b"allow", error.allow.encode())]
        case BodyTooLarge() | BodyTooSlow():
            # The rest of the body would be read as the next request.
            return [(b"connection", b"close")]
        case _:
            return []
