"""Checks the `Origin` header, which says whose web page sends a request; and CORS.

A browser sends requests of any page to any address, also to a server on the same machine. It names
the page's site in the `Origin` header of each POST, and a page cannot change this header. A request
without it comes from a program or from a reader's click, and passes.

A request with an origin passes in one of four cases:

1. The origin is one of `--cors-origin`. By default these are the loopback origins.
2. The origin is the host that the request names, which is ours (`hosts.py`).
3. The browser says `Sec-Fetch-Site: same-origin`. No page can set or change such a header. This
   covers pages behind a proxy that replaces `Host`, such as nginx with a bare `proxy_pass`.
4. The request has the header `X-Dynemo-Page`, which the page at `/` sends. Browsers send no
   Sec-Fetch headers to plain http on other hosts than loopback, so case 3 would not cover the page
   there. A page of another site cannot send the header either: the browser asks first (a preflight,
   because the header is not a simple one), and only origins of case 1 get the permission.

Preflights are answered by case 1 alone, before any route. Cookies play no part, so answers never
allow credentials.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from dynemo.errors import Forbidden, RequestError
from dynemo.http.access.authority import Authority, parse_authority
from dynemo.http.asgi import Header, Scope, find_header, find_headers
from dynemo.limits import PREFLIGHT_SECONDS, SHOWN_CHARACTERS
from dynemo.spelling import quoted

PAGE_HEADER = b"x-dynemo-page"
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([^\s/]*)")
_PORTS = {"http": 80, "https": 443}
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://\*?")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_EXPOSED = b"x-request-id, retry-after"


@dataclass(frozen=True, slots=True)
class Origin:
    """`http` and `https` have an authority with its port; other schemes have any text."""

    scheme: str
    place: Authority | str


@dataclass(frozen=True, slots=True)
class Origins:
    """The origins of `--cors-origin`."""

    named: frozenset[Origin] = frozenset()
    schemes: frozenset[str] = frozenset()  #: all origins of these
    has_loopback: bool = True
    is_any: bool = False

    def has(self, origin: Origin) -> bool:
        if self.is_any or origin in self.named or origin.scheme in self.schemes:
            return True
        place = origin.place
        return self.has_loopback and isinstance(place, Authority) and place.is_loopback


NULL = Origin("null", "")


def parse_origin(text: str) -> Origin:
    """Raises ValueError for text of another form."""
    if text == "null":
        return NULL
    found = _ORIGIN.fullmatch(text.lower())
    if found is None:
        raise ValueError(f"not an origin: {text}")
    scheme, place = found.groups()
    if scheme not in _PORTS:
        return Origin(scheme, place)
    authority = parse_authority(place)
    return Origin(scheme, Authority(authority.host, authority.port or _PORTS[scheme]))


def origins_of(texts: Iterable[str]) -> Origins:
    """Reads the values of `--cors-origin`. Without a value it returns the loopback origins.

    A value is `*`, `null`, an origin, or `SCHEME://` for all origins of a scheme. Raises
    ValueError for any other value.
    """
    named: set[Origin] = set()
    schemes: set[str] = set()
    given = list(texts)
    for text in given:
        if found := _SCHEME.fullmatch(text.lower()):
            schemes.add(found[1])
        elif text != "*":
            named.add(parse_origin(text.removesuffix("/")))
    return Origins(frozenset(named), frozenset(schemes), not given, "*" in given)


def origin_of(scope: Scope) -> Origin | None:
    """The origin of a request; None if it names none. A broken one is like no other. Raises
    RequestError for several."""
    values = find_headers(scope, b"origin")
    if len(values) > 1:
        raise RequestError(f"A request has one Origin header at most, not {len(values)}.")
    if not values or not values[0]:
        return None
    try:
        return parse_origin(values[0])
    except ValueError:
        return Origin("", values[0])


def check_origin(
    origins: Origins, origin: Origin | None, scope: Scope, host: Authority | None
) -> None:
    """Raises Forbidden for a page of another site. See the top of the file."""
    if (
        origin is None
        or origins.has(origin)
        or (host is not None and origin.place == _with_port(host, origin.scheme))
        or find_header(scope, b"sec-fetch-site") == "same-origin"
        or find_header(scope, PAGE_HEADER)
    ):
        return
    raise _refusal(scope)


def cors_headers(origins: Origins, origin: Origin | None, scope: Scope) -> list[Header]:
    """The headers of each answer: they let pages of an allowed origin read it."""
    vary = (b"vary", b"Origin")
    if origin is None or not origins.has(origin):
        return [vary]
    text = find_header(scope, b"origin").encode("latin-1")
    return [
        vary,
        (b"access-control-allow-origin", text),
        (b"access-control-expose-headers", _EXPOSED),
    ]


def is_preflight(scope: Scope) -> bool:
    """Whether a browser asks if a page may send a request."""
    return (
        scope["method"] == "OPTIONS"
        and bool(find_header(scope, b"origin"))
        and bool(find_header(scope, b"access-control-request-method"))
    )


def preflight_headers(origins: Origins, origin: Origin | None, scope: Scope) -> list[Header]:
    """The permission for a page of an allowed origin. Raises Forbidden for any other page."""
    if origin is None or not origins.has(origin):
        raise _refusal(scope)
    asked = find_header(scope, b"access-control-request-headers").split(",")
    names = [name for name in map(str.strip, asked) if _TOKEN.fullmatch(name)]
    headers = [
        (b"access-control-allow-methods", b"GET, HEAD, POST"),
        (b"access-control-max-age", b"%d" % PREFLIGHT_SECONDS),
    ]
    if names:
        headers.append((b"access-control-allow-headers", ", ".join(names).encode()))
    if find_header(scope, b"access-control-request-private-network") == "true":
        headers.append((b"access-control-allow-private-network", b"true"))
    return headers


def _with_port(host: Authority, scheme: str) -> Authority:
    return host if host.port is not None else Authority(host.host, _PORTS.get(scheme))


def _refusal(scope: Scope) -> Forbidden:
    shown = find_header(scope, b"origin")[:SHOWN_CHARACTERS]
    return Forbidden(
        f"Pages of {quoted(shown)} may not send requests to this server; to allow them, start it "
        f"with --cors-origin {shown}.",
        detail="cross_site",
    )
