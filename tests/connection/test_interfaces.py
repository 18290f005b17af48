"""This machine's addresses, and an IPv6-only network in a separate namespace."""

import shutil
import socket
import subprocess
import sys

import pytest

from dynemo.connection.interfaces import interface_addresses, stays
from support.program import program, program_environment

_NETWORK = """
ip link set lo up
ip -6 addr add 2001:db8::5/64 dev lo nodad
ip -6 addr add fd00::5/64 dev lo nodad
ip -6 addr add fe80::5/64 dev lo nodad
ip -6 addr add 2001:db8::6/64 dev lo nodad preferred_lft 0
exec "$@"
"""
_PROGRAM = program("inet6_program")


def test_this_machines_addresses_can_be_listened_at() -> None:
    for address in interface_addresses():
        assert not address.startswith(("127.", "169.254.", "fe80:"))
        assert address != "::1"
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        socket.create_server((address, 0), family=family).close()


@pytest.mark.parametrize(
    ("scope", "flags", "does_stay"),
    [
        ("00", "80", True),  # permanent
        ("00", "00", True),  # autoconfigured
        ("00", "82", True),
        ("00", "01", False),  # temporary
        ("00", "20", False),  # deprecated
        ("00", "c8", False),  # a duplicate: another machine has it
        ("20", "80", False),  # link-local
        ("10", "80", False),  # loopback
    ],
)
def test_which_addresses_stay(scope: str, flags: str, does_stay: bool) -> None:
    line = f"20010db8000000000000000000000005 02 40 {scope} {flags}     eth0"
    assert stays(line) is does_stay


@pytest.mark.parametrize(
    ("advertise", "said"),
    [
        ([], {"[2001:db8::5]", "[fd00::5]"}),
        (["2001:db8::5"], {"[2001:db8::5]"}),
        (["[::1]:5511"], {"[::1]"}),
    ],
)
def test_a_network_of_ipv6_alone(advertise: list[str], said: set[str]) -> None:
    addresses = _in_namespace(*advertise).split()
    assert {address.rpartition(":")[0] for address in addresses} == said
    if advertise == ["[::1]:5511"]:
        assert addresses == advertise


def _in_namespace(*advertise: str) -> str:
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("unshare and ip make a network namespace")
    words = ["unshare", "--net", "--user", "--map-root-user", "sh", "-ec", _NETWORK, "sh"]
    if subprocess.run([*words, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may make no network namespace with IPv6")
    command = [*words, sys.executable, _PROGRAM, *advertise]
    done = subprocess.run(
        command, env=program_environment(), check=False, capture_output=True, text=True, timeout=20
    )
    assert not done.returncode, done.stderr
    return done.stdout
