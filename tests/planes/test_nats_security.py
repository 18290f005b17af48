"""Clients of a nats-server authenticate by password, token, nkey, credentials or certificate."""

import asyncio
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dynemo.connection.tls import connecting_context, files_of
from dynemo.errors import Unavailable, UsageError
from dynemo.planes.requests.nats.client import NatsSettings
from dynemo.planes.requests.nats.plane import nats_requests
from support.authority import Authority
from support.nats_identities import Operator, user_key
from support.nats_process import NatsProcess
from support.planes_world import World, collect, make_request
from support.waiting import until

Start = Callable[..., NatsProcess]


@pytest.fixture
def start() -> Iterator[Start]:
    """Returns a function that starts servers. They stop at the end of the test."""
    with ExitStack() as stack:

        def start(*options: object) -> NatsProcess:
            server = NatsProcess(*[str(option) for option in options])
            stack.callback(server.stop)
            return server

        yield start


def _answer(settings: NatsSettings) -> None:
    """Checks that a worker and an ingress with these settings reach each other."""

    async def body() -> None:
        world = World("nats", nats=settings)
        async with world.ingress() as ingress, world.worker() as worker:
            answer = await collect(ingress.remote(worker.record).generate(make_request(1, 3)))
            assert answer == [1, 2, 3]

    asyncio.run(body())


def _refusal(settings: NatsSettings) -> str:
    """Returns the error message. It comes long before the end of the wait for a server."""

    async def body() -> str:
        with pytest.raises(UsageError) as caught:
            async with nats_requests(replace(settings, wait=15)):
                pass
        return str(caught.value)

    began = time.monotonic()
    said = asyncio.run(body())
    assert time.monotonic() - began < 5
    assert "\n" not in said
    assert "secret" not in said
    return said


def test_a_password_and_a_token(start: Start) -> None:
    by_user = NatsSettings((start("--user", "me", "--pass", "secret").url,))
    by_token = NatsSettings((start("--auth", "secret").url,))
    _answer(replace(by_user, user="me", password="secret"))
    _answer(replace(by_token, token="secret"))
    in_url = by_user.servers[0].replace("//", "//me:secret@")
    _answer(NatsSettings((in_url,)))
    for wrong, said in (
        (by_user, "refuses a client without credentials"),
        (replace(by_user, user="me", password="wrong"), "refuses user me and its password"),
        (replace(by_token, token="wrong"), "refuses this token"),
        (NatsSettings((by_user.servers[0].replace("//", "//you:secret@"),)), "refuses a client"),
    ):
        refusal = _refusal(wrong)
        assert said in refusal
        assert "NATS_AUTH_" in refusal
    with pytest.raises(UsageError, match="a user and a password together"):
        _answer(replace(by_user, user="me"))


def test_an_nkey(start: Start, tmp_path: Path) -> None:
    user, stranger = user_key(), user_key()
    config = tmp_path / "nats.conf"
    config.write_text(f"authorization: {{ users: [ {{ nkey: {user.public} }} ] }}")
    settings = NatsSettings((start("-c", config).url,), nkey=user.seed.decode())
    _answer(settings)
    said = _refusal(replace(settings, nkey=stranger.seed.decode()))
    assert "refuses the nkey of NATS_AUTH_NKEY" in said
    with pytest.raises(UsageError, match="NATS_AUTH_NKEY does not hold an nkey seed"):
        _answer(replace(settings, nkey="nonsense"))


def test_a_credentials_file(start: Start, tmp_path: Path) -> None:
    operator = Operator()
    config = tmp_path / "nats.conf"
    config.write_text(operator.config)
    good = operator.credentials(tmp_path / "good.creds")
    settings = NatsSettings((start("-c", config).url,), credentials=str(good))
    _answer(settings)
    for name, bad in (
        ("expired", operator.credentials(tmp_path / "expired.creds", -60)),
        ("another's", Operator().credentials(tmp_path / "another.creds")),
    ):
        said = _refusal(replace(settings, credentials=str(bad)))
        assert f"refuses the credentials of {bad}" in said, name


def test_files_that_hold_no_credentials(tmp_path: Path) -> None:
    good = Operator().credentials(tmp_path / "good.creds").read_text()
    wrong = {
        "nothing": "",
        "noise": "no credentials\n" * 9,
        "half": good[: good.index("-----BEGIN USER")],
        "seed": good.replace("\nSU", "\nXX"),
        "bytes": "\u00e9",
    }
    for name, text in wrong.items():
        path = tmp_path / name
        path.write_text(text)
        said = _refusal(NatsSettings(credentials=str(path)))
        assert str(path) in said
    assert "Cannot read" in _refusal(NatsSettings(credentials=str(tmp_path / "missing")))


@pytest.mark.timeout(90)
def test_expired_credentials_are_read_again(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The server closes the connection permanently. To renew the credentials, write the file."""
    operator = Operator()
    config, path = tmp_path / "nats.conf", tmp_path / "user.creds"
    config.write_text(operator.config)
    settings = NatsSettings((start("-c", config).url,), credentials=str(path))

    async def body() -> None:
        operator.credentials(path, 10)
        world = World("nats", nats=settings)
        async with world.ingress() as ingress, world.worker() as worker:
            remote = ingress.remote(worker.record)
            assert await collect(remote.generate(make_request(1, 2))) == [1, 2]
            await until(lambda: "refuses the credentials" in caplog.text, 40)
            await asyncio.sleep(1)  # many attempts to connect
            operator.credentials(path)
            async with asyncio.timeout(20):
                while True:
                    try:
                        assert await collect(remote.generate(make_request(1, 2))) == [1, 2]
                        break
                    except Unavailable:
                        await asyncio.sleep(0.1)

    with caplog.at_level(logging.WARNING):
        asyncio.run(body())
    said = [r.getMessage() for r in caplog.records if "refuses" in r.getMessage()]
    assert len(said) <= 6  # it does not log each attempt


def test_mutual_tls(start: Start, authority: Authority, ours: Path, tmp_path: Path) -> None:
    server = start(
        "--tls", "--tlscert", ours / "tls.crt", "--tlskey", ours / "tls.key",
        "--tlsverify", "--tlscacert", ours / "ca.crt",
    )  # fmt: skip
    settings = NatsSettings((server.url.replace("nats://", "tls://"),))
    _answer(replace(settings, tls=_context(authority.issue("nats-client"))))
    _answer(NatsSettings((server.url,), tls=_context(ours)))
    bare, other = tmp_path / "bare", Authority(tmp_path / "other").issue("stranger")
    bare.mkdir()
    shutil.copy(ours / "ca.crt", bare)
    for wrong, said in (
        (_context(bare), "refuses this side's certificate: certificate required"),
        (_context(other), "its certificate is not valid"),
        (None, "its certificate is not valid"),
        (_context(authority.issue("nats-old", days=0)), "certificate"),
    ):
        refusal = _refusal(replace(settings, tls=wrong))
        assert said in refusal
        assert "NATS_AUTH_CA" in refusal


def test_a_server_without_tls_gets_no_secret(start: Start, ours: Path) -> None:
    server = start("--user", "me", "--pass", "secret")
    settings = NatsSettings((server.url,), user="me", password="secret", tls=_context(ours))
    assert "has no TLS, and the settings require TLS" in _refusal(settings)


@pytest.mark.parametrize("server", ["http://h:1", "nats://h:port", "nats://:4222", "nats://h:0"])
def test_an_invalid_address_is_refused(server: str) -> None:
    assert "is not a NATS server" in _refusal(NatsSettings((server,)))


def test_secrets_are_not_shown() -> None:
    shown = repr(NatsSettings(password="secret", token="secret", nkey="secret"))
    assert "secret" not in shown


def _context(folder: Path) -> Any:
    return connecting_context(*files_of(folder))


RIGHTS = """
authorization {{
  users = [
    {{user: full, password: secret}}
    {{user: less, password: secret, permissions: {{{rights}}}}}
  ]
}}
"""


def test_a_worker_that_may_not_subscribe_ends_with_a_sentence(start: Start, tmp_path: Path) -> None:
    config = tmp_path / "nats.conf"
    config.write_text(RIGHTS.format(rights='subscribe: {allow: "_INBOX.>"}'))
    server = start("-c", config)
    settings = NatsSettings((server.url,), user="less", password="secret")

    async def body() -> None:
        async with World("nats", nats=settings).worker():
            pass

    with pytest.raises(UsageError, match=r"denies user less .* a right .*subscribe") as caught:
        asyncio.run(body())
    assert "secret" not in str(caught.value)


def test_an_ingress_that_may_not_publish_says_so(start: Start, tmp_path: Path) -> None:
    config = tmp_path / "nats.conf"
    config.write_text(RIGHTS.format(rights='publish: {deny: "dynemo.>"}'))
    server = start("-c", config)
    full = NatsSettings((server.url,), user="full", password="secret")

    async def body() -> None:
        async with World("nats", nats=full).worker() as worker:
            less = NatsSettings((server.url,), user="less", password="secret")
            async with World("nats", nats=less).ingress() as ingress:
                assert ingress.requests.trouble == ""
                with pytest.raises(Unavailable):
                    await collect(ingress.remote(worker.record).generate(make_request(1, 2)))
                assert "denies user less" in ingress.requests.trouble

    asyncio.run(body())


def test_a_frozen_server_is_noticed(start: Start) -> None:
    server = start()

    async def body() -> None:
        async with World("nats", nats=NatsSettings((server.url,))).ingress() as ingress:
            assert ingress.requests.trouble == ""
            server.freeze()
            await until(lambda: "does not answer" in ingress.requests.trouble, 15)
            server.thaw()
            await until(lambda: ingress.requests.trouble == "", 15)

    asyncio.run(body())
