"""TLS between workers and ingresses: which peers trust each other, and the errors otherwise."""

import asyncio
import logging
import shutil
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvloop

from dynemo.connection.server import EngineHandler
from dynemo.connection.tls import client_context, server_context
from dynemo.errors import InstanceGone, Unavailable, UsageError
from dynemo.planes.requests.memory import MemoryRequests
from dynemo.planes.requests.tcp import TcpRequests, tcp_request_server
from dynemo.planes.responses.ingresses import ingress_connections
from dynemo.planes.responses.listen import listen
from support.authority import Authority
from support.planes_world import FakeEngine, Ingress, Worker, collect, make_request
from support.records import make_record

Folders = dict[str, Path]
Log = pytest.LogCaptureFixture
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@dataclass
class Pair:
    """A side that dials and a side that listens, with their folders of `--tls`, or None.

    On the plane `memory` the worker dials, as with NATS. On `tcp` the ingress dials.
    """

    plane: str
    listens: Path | None
    dials: Path | None
    advertise: str | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[tuple[Ingress, Worker]]:
        server = server_context(self.listens) if self.listens else None
        client = client_context(self.dials) if self.dials else None
        memory, engine, is_tcp = MemoryRequests(), FakeEngine(), self.plane == "tcp"
        async with (
            listen(
                "127.0.0.1",
                advertise=None if is_tcp else self.advertise,
                tls=None if is_tcp else server,
            ) as responses,
            ingress_connections("w" * 32, EngineHandler(engine), tls=client) as ingresses,
            tcp_request_server(
                ingresses, advertise=self.advertise if is_tcp else None, tls=server
            ) as tcp,
        ):
            requests = TcpRequests(responses, client) if is_tcp else memory
            record = make_record("w" * 32, tcp)
            async with (tcp if is_tcp else memory).serve(record, ingresses.accept):
                yield Ingress(responses, requests), Worker(record, ingresses, engine)

    async def answer(self) -> None:
        async with self.running() as (ingress, worker):
            answer = await collect(ingress.remote(worker.record).generate(make_request(1, 50)))
            assert answer == list(range(1, 51))

    async def refuse(self) -> str:
        async with self.running() as (ingress, worker), asyncio.timeout(10):
            kind = InstanceGone if self.plane == "tcp" else Unavailable
            with pytest.raises(kind) as caught:
                await anext(ingress.remote(worker.record).generate(make_request()))
            return str(caught.value)


@pytest.fixture(params=["memory", "tcp"])
def plane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_both_sides_are_checked(run: Run, plane: str, authority: Authority) -> None:
    one, other = (
        authority.issue(f"one-{plane}-{run.__module__}"),
        authority.issue(f"other-{plane}-{run.__module__}"),
    )
    run(Pair(plane, one, other).answer())


def test_one_side_alone_is_checked_where_only_one_has_a_certificate(
    plane: str, ours: Path, tmp_path: Path
) -> None:
    server, client = tmp_path / "server", tmp_path / "client"
    for folder, names in ((server, ("tls.crt", "tls.key")), (client, ("ca.crt",))):
        folder.mkdir()
        for name in names:
            shutil.copy(ours / name, folder)
    asyncio.run(Pair(plane, server, client).answer())
    with pytest.raises(UsageError, match=r"a listener needs the files tls\.crt and tls\.key"):
        server_context(client)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize(
    ("listens", "dials", "said"),
    [
        ("ours", "", "it uses TLS, and this side has no --tls"),
        ("", "ours", "it does not use TLS, and this side has --tls"),
        ("ours", "other", "its certificate is not valid: "),
        ("expired", "ours", "its certificate is not valid: certificate has expired"),
        ("elsewhere", "ours", "not valid for '127.0.0.1'"),
    ],
)
def test_the_dialling_side_names_the_problem(
    run: Run, plane: str, listens: str, dials: str, said: str, folders: Folders, caplog: Log
) -> None:
    with caplog.at_level(logging.WARNING):
        refusal = run(Pair(plane, folders.get(listens), folders.get(dials)).refuse())
    assert said in refusal
    (warning,) = _warnings(caplog)
    assert said in warning


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize(
    ("dials", "said"),
    [
        ("half", "its certificate is not valid: "),
        ("bare", "peer did not return a certificate"),
        ("expired", "its certificate is not valid: certificate has expired"),
    ],
)
def test_the_listening_side_names_the_refused_peer(
    run: Run, plane: str, dials: str, said: str, folders: Folders, caplog: Log
) -> None:
    with caplog.at_level(logging.WARNING):
        refusal = run(Pair(plane, folders["ours"], folders[dials]).refuse())
    assert "perhaps because of this side's certificate: its log says why" in refusal
    here, there = _warnings(caplog)
    assert here.startswith("TLS handshake with a peer failed: ")
    assert said in here
    assert "its log says why" in there


def _warnings(caplog: Log) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("dynemo")]


@pytest.fixture(scope="module")
def folders(authority: Authority, ours: Path, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Returns folders of certificates.

    `other` is signed by another authority. `half` is too, but trusts our authority. `bare` has no
    certificate. `expired` has expired. `elsewhere` is for another host.
    """
    stranger = Authority(tmp_path_factory.mktemp("stranger") / "authority")
    other, half = stranger.issue("other"), stranger.issue("half")
    shutil.copy(ours / "ca.crt", half)
    bare = tmp_path_factory.mktemp("bare")
    shutil.copy(ours / "ca.crt", bare)
    return {
        "ours": ours,
        "other": other,
        "half": half,
        "bare": bare,
        "expired": authority.issue("expired", days=0),
        "elsewhere": authority.issue("elsewhere", "DNS:node7.example"),
    }


def test_a_name_of_the_certificate_may_be_advertised(plane: str, authority: Authority) -> None:
    named = authority.issue(f"named-{plane}", "DNS:localhost")
    asyncio.run(Pair(plane, named, named, advertise="localhost").answer())


def test_a_plain_stranger_disturbs_nobody(ours: Path) -> None:
    async def body() -> None:
        async with Pair("memory", ours, ours).running() as (ingress, worker):
            address = ingress.responses.reach.loopback
            host, port = address.removeprefix("tls://").rsplit(":", 1)
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
                async with asyncio.timeout(10):
                    await reader.read()
            finally:
                writer.transport.abort()
            answer = await collect(ingress.remote(worker.record).generate(make_request(1, 3)))
            assert answer == [1, 2, 3]

    asyncio.run(body())


def test_folders_that_cannot_be_used(ours: Path, folders: Folders, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"neither ca\.crt nor tls.crt"):
        client_context(tmp_path)
    shutil.copy(ours / "tls.crt", tmp_path)
    with pytest.raises(UsageError, match=r"only one of tls\.crt and tls.key"):
        client_context(tmp_path)
    shutil.copy(folders["other"] / "tls.key", tmp_path)
    with pytest.raises(UsageError, match=r'tls.crt" cannot be used for TLS: key values mismatch'):
        server_context(tmp_path)
    (tmp_path / "ca.crt").write_text("nothing")
    with pytest.raises(UsageError, match=r'ca.crt" cannot be used for TLS: no certificate'):
        server_context(tmp_path)


def test_versions_from_before_1_2_are_not_spoken(ours: Path) -> None:
    assert server_context(ours).minimum_version >= ssl.TLSVersion.TLSv1_2
    assert client_context(ours).minimum_version >= ssl.TLSVersion.TLSv1_2
