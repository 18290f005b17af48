"""The client of a request: a key, or an address where no key is asked for."""

from dataclasses import dataclass

from dynemo.http.asgi import Scope


@dataclass(frozen=True, slots=True)
class Client:
    """Turns, limits and usage count by `name`. A key itself is never kept here."""

    name: str  #: of its key; without keys, its address
    has_key: bool = False


def client_of_address(scope: Scope) -> Client:
    """The client of a server without keys."""
    address = scope.get("client")
    return Client(address[0] if address else "local")
