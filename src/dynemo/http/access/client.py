"""The client of a request: a key, or an address where no key is asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv6Address

from dynemo.http.access.share import Share
from dynemo.http.asgi import Scope

_HOST_BITS = 64


@dataclass(frozen=True, slots=True)
class Client:
    """Turns, limits and usage count by `name`. A key itself is never kept here."""

    name: str  #: of its key; without keys, its address or network
    has_key: bool = False
    models: frozenset[str] | None = None  #: the models that it may know; None: all
    cache_salt: str = ""  #: of its key: prefix caches are not shared across salts
    share: Share | None = None  #: what its key may still use; None: no limit

    @property
    def lacks_key(self) -> bool:
        """Whether it has no key where there are keys."""
        return self.models is not None and not self.has_key

    def may_use(self, model: str) -> bool:
        return self.models is None or model in self.models

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Counts one request while it runs. Raises Overloaded if the key has no room for it."""
        if self.share is None:
            yield
        else:
            with self.share.asking():
                yield

    def spend(self, tokens: int) -> None:
        """Counts tokens of the prompt or of the answer."""
        if self.share is not None:
            self.share.spend(tokens)


def client_of_address(scope: Scope) -> Client:
    """The client of a server without keys."""
    address = scope.get("client")
    return Client(_network(address[0]) if address else "local")


def stranger(scope: Scope) -> Client:
    """A client without a key, where there are keys: it learns of no model."""
    return Client(client_of_address(scope).name, models=frozenset())


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
