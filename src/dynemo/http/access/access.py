"""Checks each request before its route runs: its host, its origin and its key."""

from dataclasses import dataclass, field

from dynemo.errors import Unauthenticated
from dynemo.http.access.authority import Authority
from dynemo.http.access.client import Client, client_of_address, stranger
from dynemo.http.access.hosts import Hosts, host_of
from dynemo.http.access.keys import Keys
from dynemo.http.access.origins import (
    Origins,
    check_origin,
    cors_headers,
    is_preflight,
    origin_of,
    preflight_headers,
)
from dynemo.http.asgi import Header, Scope

#: Paths for probes. These name a server by whatever address they have, and have no key.
PROBES = frozenset({"/live", "/health"})
#: The page asks its reader for the key.
WITHOUT_KEY = PROBES | {"/"}


@dataclass(frozen=True, slots=True)
class Access:
    hosts: Hosts = field(default_factory=Hosts)
    origins: Origins = field(default_factory=Origins)
    keys: Keys | None = None  #: None: everybody may ask

    def check_host(self, scope: Scope) -> Authority | None:
        """The host of the request. Raises RequestError, and Forbidden if it is not ours."""
        host = host_of(scope)
        if host is not None and scope["path"] not in PROBES:
            self.hosts.check(host)
        return host

    def cors_headers(self, scope: Scope) -> list[Header]:
        """The headers of every answer, a refusal too. Raises RequestError."""
        return cors_headers(self.origins, origin_of(scope), scope)

    def preflight(self, scope: Scope) -> list[Header] | None:
        """The answer to a browser's question; None for other requests. Raises Forbidden."""
        if not is_preflight(scope):
            return None
        return preflight_headers(self.origins, origin_of(scope), scope)

    def check_origin(self, scope: Scope, host: Authority | None) -> None:
        """Raises Forbidden for pages of other sites."""
        if scope["path"] not in PROBES:
            check_origin(self.origins, origin_of(scope), scope, host)

    def client(self, scope: Scope) -> Client:
        """The client that sends the request. Raises Unauthenticated."""
        if self.keys is None:
            return client_of_address(scope)
        client = self.keys.find(scope)
        if client is None and scope["path"] not in WITHOUT_KEY:
            raise Unauthenticated(
                "This server needs a valid API key; send it as `Authorization: Bearer KEY`.",
            )
        return client or stranger(scope)
