"""ASGI's callables and messages, typed as far as this package uses them."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Header = tuple[bytes, bytes]

JSON = "application/json"
#: An extension of `http/server.py`: `scope["extensions"][ABORT]["abort"]()` drops the connection at
#: once, with its unsent bytes. Servers without it close the connection when they can.
ABORT = "dynemo.abort"
#: An extension of `http/server.py`, on connections that take one of the last file descriptors.
SURPLUS = "dynemo.surplus"


def find_header(scope: Scope, name: bytes) -> str:
    """The header's first value, or empty text. `name` is in lower case, as ASGI demands."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value).decode("latin-1")
    return ""


def find_headers(scope: Scope, name: bytes) -> list[str]:
    """All values of a header that may occur more than once."""
    return [bytes(value).decode("latin-1") for key, value in scope["headers"] if key == name]


def start_event(status: int, headers: Iterable[Header]) -> Event:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body_event(body: bytes, *, more: bool) -> Event:
    return {"type": "http.response.body", "body": body, "more_body": more}
