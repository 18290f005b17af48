"""Checks each request before its route runs: its host, its origin and its key."""

from dataclasses import dataclass, field

from dynemo.http.access.authority import Authority
from dynemo.http.access.hosts import Hosts, host_of
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


@dataclass(frozen=True, slots=True)
class Access:
    hosts: Hosts = field(default_factory=Hosts)
    origins: Origins = field(default_factory=Origins)

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
