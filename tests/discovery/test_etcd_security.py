"""etcd servers that require certificates, and also a user."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dynemo.errors import UsageError
from dynemo.planes.discovery.etcd.backend import EtcdSettings, open_etcd
from support.authority import Authority
from support.discovery_seen import in_loop, watching
from support.etcd_server import EtcdServer, etcd_running, require_root


@pytest.fixture(scope="module")
def etcd(ours: Path) -> Iterator[EtcdServer]:
    yield from etcd_running(**_options(ours))


def _options(folder: Path) -> dict[str, str]:
    return {
        "scheme": "https",
        "cert_file": str(folder / "tls.crt"),
        "key_file": str(folder / "tls.key"),
        "trusted_ca_file": str(folder / "ca.crt"),
        "client_cert_auth": "true",
    }


def _settings(etcd: EtcdServer, folder: Path) -> EtcdSettings:
    return EtcdSettings(
        (f"https://{etcd.address}",),
        ca=folder / "ca.crt",
        cert=folder / "tls.crt",
        key=folder / "tls.key",
    )


async def _refusal(settings: EtcdSettings) -> str:
    """Returns the error message. It comes at once, because waiting does not help."""
    began = time.monotonic()
    with pytest.raises(UsageError) as caught:
        async with open_etcd(settings, wait=15):
            pass
    assert time.monotonic() - began < 10
    return str(caught.value)


@in_loop
async def test_mutual_tls(etcd: EtcdServer, authority: Authority) -> None:
    settings = _settings(etcd, authority.issue("etcd-client"))
    async with open_etcd(settings) as found, watching(found, "/dynemo/tls/") as seen:
        await found.put("/dynemo/tls/a", b"1")
        await seen.until(lambda: seen.state)


@in_loop
async def test_the_error_names_the_wrong_setting(
    etcd: EtcdServer, authority: Authority, ours: Path, tmp_path: Path
) -> None:
    good = _settings(etcd, ours)
    stranger = Authority(tmp_path / "stranger").issue("stranger")
    old = authority.issue("old", days=0)
    for settings, said in (
        (replace(good, cert=None, key=None), "it refuses this side's certificate"),
        (_settings(etcd, old), "it refuses this side's certificate"),
        (replace(_settings(etcd, stranger), ca=good.ca), "it refuses this side's certificate"),
        (_settings(etcd, stranger), "its certificate is not valid"),
    ):
        refusal = await _refusal(settings)
        assert said in refusal
        assert "ETCD_AUTH_CA" in refusal
    for settings, said in (
        (EtcdSettings((etcd.address,)), f"uses TLS; write https://{etcd.address}"),
        (
            replace(good, key=old / "tls.key"),
            'tls.crt" cannot be used for TLS: key values',
        ),
        (replace(good, ca=ours / "tls.key"), 'tls.key" cannot be used for TLS: no certificate'),
    ):
        assert said in await _refusal(settings)


@in_loop
async def test_a_certificate_of_another_host(authority: Authority, ours: Path) -> None:
    elsewhere = authority.issue("elsewhere", "DNS:node7.example")
    for server in etcd_running(**_options(elsewhere)):
        said = await _refusal(_settings(server, ours))
        assert "not valid for '127.0.0.1'" in said


@in_loop
async def test_a_server_without_tls(ours: Path) -> None:
    for server in etcd_running():
        began = time.monotonic()
        with pytest.raises(UsageError, match="does not answer"):
            async with open_etcd(_settings(server, ours)):
                pass
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("is_mutual", [False, True])
@in_loop
async def test_a_user_over_tls(ours: Path, is_mutual: bool) -> None:
    options = _options(ours)
    if not is_mutual:
        options = {name: options[name] for name in ("scheme", "cert_file", "key_file")}
    for server in etcd_running(**options):
        anyone = _settings(server, ours)
        if not is_mutual:
            anyone = replace(anyone, cert=None, key=None)
        await require_root(anyone, "secret")
        root = replace(anyone, user="root", password="secret")
        async with open_etcd(root, lease_ttl=20) as found, watching(found, "/dynemo/") as seen:
            await found.put("/dynemo/a", b"1")
            await seen.until(lambda: seen.state)
            server.kill()
            server.start()  # it has forgotten its tokens
            await asyncio.to_thread(server.wait)
            await found.put("/dynemo/b", b"1")
            await seen.until(lambda: len(seen.state) == 2)
        said = await _refusal(replace(root, password="wrong"))
        assert "refuses" in said
        assert "wrong" not in said
        if not is_mutual:  # with mutual TLS, etcd takes the certificate's name as the user
            assert "refuses" in await _refusal(anyone)
