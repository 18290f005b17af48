"""HOST and HOST:PORT, as `Host` headers, origins and settings hold them."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

Address = IPv4Address | IPv6Address

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]+)(?::([0-9]{0,5}))?")


@dataclass(frozen=True, slots=True)
class Authority:
    """A host in its one spelling, and its port if one is given."""

    host: str | Address
    port: int | None = None

    @property
    def is_loopback(self) -> bool:
        host = self.host
        if isinstance(host, str):
            return host == "localhost" or host.endswith(".localhost")
        return host.is_loopback


def parse_authority(text: str) -> Authority:
    """Case and one trailing dot do not count. Raises ValueError for text of another form."""
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        raise ValueError(f"not HOST or HOST:PORT: {text}")
    port = int(found[2]) if found[2] else None
    if port is not None and port > 65535:
        raise ValueError(f"no such port: {text}")
    return Authority(parse_host(found[1]), port)


def parse_host(text: str) -> str | Address:
    """An address if it is one, else a name in lower case. Raises ValueError for a broken address in
    brackets, and for a name with an empty part."""
    if text.startswith("["):
        return _plain(IPv6Address(text[1:-1]))
    name = text.lower().removesuffix(".")
    if not all(name.split(".")):
        raise ValueError(f"not a host: {text}")
    try:
        return _plain(ip_address(name))
    except ValueError:
        return name


def _plain(address: Address) -> Address:
    """`::ffff:127.0.0.1` is 127.0.0.1 to a socket with both families."""
    return getattr(address, "ipv4_mapped", None) or address
