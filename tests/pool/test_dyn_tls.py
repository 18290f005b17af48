"""A pool with mutual TLS on all planes, and the errors of peers without access."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.authority import Authority
from support.command import run
from support.dyn_fleet import fleet
from support.dyn_streams import one
from support.etcd_server import EtcdServer, etcd_running
from support.nats_process import NatsProcess


@dataclass(frozen=True)
class Secure:
    authority: Authority
    etcd: EtcdServer
    nats: NatsProcess

    @property
    def flags(self) -> list[str]:
        return self.flags_of("nats")

    def flags_of(self, plane: str) -> list[str]:
        nats = ["--nats", self.nats.url.replace("nats://", "tls://")]
        return ["--etcd", f"https://{self.etcd.address}", *(nats if plane == "nats" else [])]


@pytest.fixture(scope="module")
def secure(authority: Authority) -> Iterator[Secure]:
    own = authority.issue("servers")
    ca, cert, key = (str(own / name) for name in ("ca.crt", "tls.crt", "tls.key"))
    nats = NatsProcess(
        "--tlsverify", "--tlscacert", ca, "--tlscert", cert, "--tlskey", key,
        "--user", "me", "--pass", "secret",
    )  # fmt: skip
    options = {"cert_file": cert, "key_file": key, "trusted_ca_file": ca}
    try:
        for etcd in etcd_running(scheme="https", client_cert_auth="true", **options):
            yield Secure(authority, etcd, nats)
    finally:
        nats.stop()


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_AUTH_USERNAME", "me")
    monkeypatch.setenv("NATS_AUTH_PASSWORD", "secret")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("plane", ["nats", "tcp"])
def test_a_pool_under_mutual_tls(
    secure: Secure, plane: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = secure.authority.issue(f"pool-{plane}")
    flags = [*secure.flags_of(plane), "--tls", str(ours), "--request-plane", plane]
    # The certificate has only this address. It is a variable, because only one side listens.
    monkeypatch.setenv("DYNEMO_ADVERTISE", "127.0.0.1")
    with fleet(flags) as pool:
        pool.workers(2)
        ingress = pool.ingress(workers=2)
        assert one(ingress.url, "Hello").status == 200
        listed = run("ps", *secure.flags, "--tls", ours)
        assert listed.returncode == 0
        assert listed.stdout.count(pool.address) == 2
        # An ingress with certificates for etcd and NATS, but without --tls:
        env = {
            f"{server}_AUTH_{name}": str(ours / file)
            for server in ("ETCD", "NATS")
            for name, file in (
                ("CA", "ca.crt"),
                ("CLIENT_CERT", "tls.crt"),
                ("CLIENT_KEY", "tls.key"),
            )
        }
        words = [
            "in=stdin",
            f"out={pool.address}",
            *secure.flags_of(plane),
            "--request-plane",
            plane,
        ]
        plain = run(*words, stdin="Hello", timeout=15, **env)
        assert plain.returncode == 1
        assert re.search("uses? TLS, and this side has ", plain.stderr)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"NATS_AUTH_PASSWORD": "wrong"}, "refuses user me and its password"),
        ({"NATS_AUTH_USERNAME": "", "NATS_AUTH_PASSWORD": ""}, "a client without credentials"),
        ({"NATS_AUTH_CREDENTIALS_FILE": "/nowhere.creds"}, 'credentials file "/nowhere.creds": '),
        ({"NATS_AUTH_NKEY": "SU"}, "NATS_AUTH_NKEY does not hold an nkey seed"),
        ({"ETCD_AUTH_USERNAME": "me"}, "a user and a password together"),
        ({"DYNEMO_TLS": "/nowhere"}, "--tls /nowhere: the folder has neither"),
    ],
)
@pytest.mark.parametrize("place", [["in=dyn://lost", "out=echo"], ["in=stdin", "out=dyn://lost"]])
def test_a_refused_client_names_the_reason(
    secure: Secure, tmp_path: Path, place: list[str], environment: dict[str, str], said: str
) -> None:
    ours = secure.authority.issue(tmp_path.name)
    environment = {"DYNEMO_TLS": str(ours), **environment}
    began = time.monotonic()
    done = run(*place, *secure.flags, "--wait", "20", stdin="Hello", timeout=15, **environment)
    assert time.monotonic() - began < 10  # waiting would not help
    assert done.returncode == 2
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert said in line
