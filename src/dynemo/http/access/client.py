"""The client of a request: a key, or an address where no key is asked for."""

from dataclasses import dataclass
from ipaddress import IPv6Address

from dynemo.http.asgi import Scope

_HOST_BITS = 64


@dataclass(frozen=True, slots=True)
class Client:
    """Turns, limits and usage count by `name`. A key itself is never kept here."""

    name: str  #: of its key; without keys, its address or network
    has_key: bool = False


def client_of_address(scope: Scope) -> Client:
    """The client of a server without keys."""
    address = scope.get("client")
    return Client(_network(address[0]) if address else "local")


def _network(address: str) -> str:
    """Returns the network of an IPv6 address, in which one host may have any address. Returns other
    addresses as they are."""
    if ":" not in address:
        return address
    try:
        parsed = IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(int(parsed) >> _HOST_BITS << _HOST_BITS)}/{128 - _HOST_BITS}"
