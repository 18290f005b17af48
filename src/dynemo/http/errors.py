"""Errors that only HTTP has, and the headers that an error brings. A dialect writes the body."""

from dynemo.errors import DynemoError, RequestError, Unauthenticated, Unavailable
from dynemo.http.asgi import Header

#: nginx's status for a client that went away. It is counted and logged, and never sent.
CLIENT_GONE = 499


class ClientGone(Exception):
    """The client closed its connection: there is nobody to answer."""


class NoSuchPath(RequestError):
    status = 404
    code = "unknown_path"


class WrongMethod(RequestError):
    status = 405
    code = "wrong_method"

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class BodyTooSlow(RequestError):
    """The request's body stopped arriving."""

    status = 408
    code = "body_too_slow"


class EncodedBody(RequestError):
    """The body is compressed. It could grow without a bound."""

    status = 415
    code = "encoded_body"


def internal_error() -> DynemoError:
    """The error that a client gets for a fault of ours; the log has the details."""
    return DynemoError("The server had an error while processing your request.")


def headers_of(error: DynemoError) -> list[Header]:
    """The headers that an error adds to its status and body."""
    match error:
        case Unavailable():
            return [(b"retry-after", b"%d" % error.retry_after)]
        case Unauthenticated():
            return [(b"www-authenticate", b"Bearer")]
        case WrongMethod():
            return [(b"allow", error.allow.encode())]
        case _:
            return []
