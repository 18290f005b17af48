"""The names under which a server may be called."""

import pytest

from dynemo.errors import Forbidden, RequestError
from dynemo.http.access.authority import parse_authority
from dynemo.http.access.hosts import Hosts, host_of, hosts_of

LOOPBACK = hosts_of("127.0.0.1", "127.0.0.1")
ANY_ADDRESS = hosts_of("0.0.0.0", "0.0.0.0")
ANY_V6 = hosts_of("::", "::")
ONE_ADDRESS = hosts_of("box.example", "192.0.2.7")


def has(hosts: Hosts, text: str) -> bool:
    return hosts.has(parse_authority(text))


@pytest.mark.parametrize(
    "text",
    [
        "localhost", "LocalHost:8080", "localhost.", "a.b.localhost:1", "127.0.0.1",
        "127.0.0.1:8080", "127.255.3.4", "[::1]", "[::1]:8080",
        "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]:80",
        "localhost:",
    ],
)  # fmt: skip
def test_loopback_names_and_addresses_are_always_ours(text: str) -> None:
    for hosts in (LOOPBACK, ANY_ADDRESS, ANY_V6, ONE_ADDRESS):
        assert has(hosts, text)


@pytest.mark.parametrize(
    "text",
    [
        "evil.example", "evil.example:8080", "localhost.evil.example", "evillocalhost",
        "127.0.0.1.evil.example", "127.0.0.1.nip.io", "0x7f000001", "2130706433", "127.1",
        "localhost.localdomain", "127.0.0.1.0", "xn--localhost", "local-host",
    ],
)  # fmt: skip
def test_other_names_are_not_ours(text: str) -> None:
    for hosts in (LOOPBACK, ANY_ADDRESS, ANY_V6, ONE_ADDRESS):
        assert not has(hosts, text)


def test_addresses_depend_on_where_the_server_listens() -> None:
    for text in ("192.0.2.9", "192.0.2.9:80", "[2001:db8::1]:443", "10.0.0.1"):
        assert has(ANY_ADDRESS, text)
        assert has(ANY_V6, text)
        assert not has(LOOPBACK, text)
        assert not has(ONE_ADDRESS, text)
    assert has(ONE_ADDRESS, "192.0.2.7:8080")
    assert has(ONE_ADDRESS, "BOX.example.:8080")
    assert has(hosts_of("fe80::1", "fe80::1%eth0"), "[fe80::1]:8080")


def test_allowed_hosts() -> None:
    hosts = hosts_of("127.0.0.1", "127.0.0.1", ["Chat.example", "api.example:8443", "10.0.0.1"])
    for text in (
        "chat.example",
        "chat.example:99",
        "CHAT.EXAMPLE.",
        "api.example:8443",
        "10.0.0.1:5",
    ):
        assert has(hosts, text)
    for text in ("api.example", "api.example:443", "a.chat.example", "10.0.0.2"):
        assert not has(hosts, text)
    assert has(hosts_of("127.0.0.1", "127.0.0.1", ["*"]), "evil.example")


def test_the_refusal_names_the_flag() -> None:
    with pytest.raises(Forbidden, match=r"--allowed-host evil\.example"):
        LOOPBACK.check(parse_authority("evil.example"))


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "a b", "user@localhost", "localhost/", "localhost:80:80", "localhost:99999",
        "[::1", "::1", "[127.0.0.1]", "[::1]x", "localhost,evil", "localhost..", ".localhost",
        "a..b", "localhost:8o", "http://localhost", "[fe80::1%eth0]", "löcalhost",
        "localhost%2e", "[]",
    ],
)  # fmt: skip
def test_a_broken_host_is_a_bad_request(text: str) -> None:
    scope = {"headers": [(b"host", text.encode("latin-1"))], "http_version": "1.1"}
    with pytest.raises(RequestError) as caught:
        host_of(scope)
    assert caught.value.status == 400


def test_a_request_has_one_host() -> None:
    host = (b"host", b"localhost")
    assert host_of({"headers": [host], "http_version": "1.1"}) == parse_authority("localhost")
    assert host_of({"headers": [], "http_version": "1.0"}) is None
    for headers, version in (([], "1.1"), ([host, host], "1.1"), ([host, host], "1.0")):
        with pytest.raises(RequestError, match="one Host header"):
            host_of({"headers": headers, "http_version": version})
