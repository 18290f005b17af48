"""The names under which this server may be called: the check of the `Host` header.

A web page of `evil.example` may let its own name point to 127.0.0.1 or to an address of the local
network (DNS rebinding). To the browser, our answers then belong to the page's own site. But the
browser still sends `Host: evil.example`, so a server that knows its names refuses the request.
An address in place of a name cannot be rebound.

Only the `Host` header counts. `X-Forwarded-Host` and `Forwarded` are ignored: any client can send
them. For a request line with an absolute URL, `http/server.py` makes the URL's host the header.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from dynemo.errors import Forbidden, RequestError
from dynemo.http.access.authority import Address, Authority, parse_authority, parse_host
from dynemo.http.asgi import Scope, find_headers
from dynemo.limits import SHOWN_CHARACTERS
from dynemo.spelling import quoted


@dataclass(frozen=True, slots=True)
class Hosts:
    """Loopback names and addresses are always ours."""

    named: frozenset[Authority] = frozenset()  #: without a port, with any port
    addresses: frozenset[Address] = frozenset()
    is_any_address: bool = False
    is_any: bool = False

    @property
    def is_loopback_only(self) -> bool:
        """Whether the server listens for this machine alone."""
        return all(address.is_loopback for address in self.addresses)

    def has(self, host: Authority) -> bool:
        if self.is_any or host.is_loopback:
            return True
        if host in self.named or Authority(host.host) in self.named:
            return True
        return not isinstance(host.host, str) and (
            self.is_any_address or host.host in self.addresses
        )

    def check(self, host: Authority) -> None:
        """Raises Forbidden."""
        if not self.has(host):
            shown = str(host.host)[:SHOWN_CHARACTERS]
            raise Forbidden(
                f"This server is not called {quoted(shown)}; use its own address, or start it with "
                f"--allowed-host {shown}.",
                detail="host_not_allowed",
            )


def hosts_of(listening: str, bound: str, allowed: Iterable[str] = ()) -> Hosts:
    """The names of a server. `listening` is its setting, `bound` the address of its socket, and
    `allowed` holds values that `check_allowed_host` has passed."""
    names = set(allowed)
    address = parse_host(bound.partition("%")[0])
    own = Authority(listening.lower().removesuffix("."))
    return Hosts(
        named=frozenset({own, *(parse_authority(name) for name in names - {"*"})}),
        addresses=frozenset() if isinstance(address, str) else frozenset({address}),
        is_any_address=not isinstance(address, str) and address.is_unspecified,
        is_any="*" in names,
    )


def host_of(scope: Scope) -> Authority | None:
    """The host that a request names. None for HTTP/1.0 without a host, which no browser sends.
    Raises RequestError for none, for several and for a broken one."""
    values = find_headers(scope, b"host")
    if not values and scope.get("http_version") == "1.0":
        return None
    if len(values) != 1:
        raise RequestError(f"A request needs one Host header, not {len(values)}.")
    try:
        return parse_authority(values[0].strip())
    except ValueError:
        shown = quoted(values[0][:SHOWN_CHARACTERS])
        raise RequestError(f"The Host header is HOST or HOST:PORT, not {shown}.") from None
