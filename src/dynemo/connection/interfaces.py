"""This machine's own addresses that its peers can dial."""

import contextlib
import socket
import struct
import sys
from ipaddress import IPv6Address
from pathlib import Path

_GET_ADDRESS = {"linux": 0x8915, "darwin": 0xC0206921}  # SIOCGIFADDR
_INET6 = Path("/proc/net/if_inet6")
_GLOBAL = "00"  # the global scope in that file; private addresses (fc00::/7) have it too
#: Flags in that file: temporary, failed as a duplicate, deprecated, tentative.
_TEMPORARY = 0x01 | 0x08 | 0x20 | 0x40


def interface_addresses() -> list[str]:
    """IPv4 first, the default route's address before the others; then IPv6 of global scope.

    Without loopback and link-local addresses, which another machine cannot dial.
    """
    found: list[str] = []
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing: it only asks the routing table
        found.append(probe.getsockname()[0])
    if sys.platform in _GET_ADDRESS:
        found += _by_interface(_GET_ADDRESS[sys.platform])
    own = [address for address in found if not address.startswith(("127.", "169.254.", "0."))]
    return list(dict.fromkeys([*own, *_inet6()]))


def _by_interface(request: int) -> list[str]:
    from fcntl import ioctl

    found: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # an interface without an address
                reply = ioctl(probe, request, struct.pack("256s", name[:15].encode()))
                found.append(socket.inet_ntoa(reply[20:24]))
    return found


def _inet6() -> list[str]:
    """The permanent addresses; the default route's alone if the system has no list."""
    if not socket.has_dualstack_ipv6():
        return []
    try:
        lines = _INET6.read_text(encoding="ascii").splitlines()
    except OSError:
        return _inet6_by_route()
    return [str(IPv6Address(bytes.fromhex(line.split()[0]))) for line in lines if stays(line)]


def stays(line: str) -> bool:
    """Whether the address is permanent. Reads ADDRESS INDEX PREFIX SCOPE FLAGS NAME, in hex."""
    _, _, _, scope, flags, _ = line.split()
    return scope == _GLOBAL and not int(flags, 16) & _TEMPORARY


def _inet6_by_route() -> list[str]:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.connect(("2001:db8::1", 9))  # sends nothing
        address = IPv6Address(probe.getsockname()[0])
        if not (address.is_link_local or address.is_loopback):
            return [str(address)]
    return []
