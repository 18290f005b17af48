"""The addresses that this process dials because a peer has named them.

A record of discovery or an envelope on the request plane says where to dial. Its writer could
otherwise make this process dial any server that it can reach. So an address must be possible for a
worker or an ingress:

- loopback only if the peer has the same host id, so that loopback is the same interface;
- never link-local, multicast or unspecified addresses, nor those of a cloud's metadata service.

A name is resolved first, and the address that was checked is the one that is dialled.
"""

import asyncio
import re
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address

from dynemo.limits import ADDRESS_CHARACTERS

_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_NO_NETWORK = IPv4Network("0.0.0.0/8")
_BROADCAST = IPv4Address("255.255.255.255")
#: Services of clouds that answer secrets to everybody on a machine, besides the link-local ones.
_METADATA = frozenset(map(ip_address, ("100.100.100.200", "192.0.0.192", "fd00:ec2::254")))


def is_loopback(host: str) -> bool:
    """Whether a host is this machine's loopback interface, by its name or address alone."""
    return host == "localhost" or ((ip := _parsed(host)) is not None and ip.is_loopback)


def refusal_of(host: str, *, is_same_host: bool) -> str:
    """Why an IP address is not dialled, as a clause; empty if it is dialled."""
    ip = _parsed(host)
    if ip is None:
        return "it does not resolve to an address"
    if ip.is_loopback:
        return "" if is_same_host else "a loopback address is dialled only on the same host"
    if ip.is_link_local or ip in _METADATA:
        return "a link-local or metadata address is not dialled"
    if ip.is_unspecified or ip.is_multicast or ip == _BROADCAST or ip in _NO_NETWORK:
        return "it is not the address of one machine"
    return ""


async def resolved(host: str, port: int, *, is_same_host: bool) -> list[str]:
    """The IP addresses to dial, in order. Raises ConnectionError that says why there is none."""
    if _parsed(host) is not None:
        found = [host]
    elif len(host) > ADDRESS_CHARACTERS or not _NAME.fullmatch(host):
        raise ConnectionError("it is not an address")
    else:
        loop = asyncio.get_running_loop()
        try:
            entries = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise ConnectionError(getattr(error, "strerror", None) or str(error)) from None
        found = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
    refusals = {ip: refusal_of(ip, is_same_host=is_same_host) for ip in found}
    permitted = [ip for ip in found if not refusals[ip]]
    if not permitted:
        raise ConnectionError(refusals[found[0]] if found else "it does not resolve to an address")
    return permitted


def _parsed(host: str) -> IPv4Address | IPv6Address | None:
    try:
        ip = ip_address(host)
    except ValueError:
        return None
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return mapped or ip
