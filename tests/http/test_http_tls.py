"""HTTPS with real certificates: reload, client certificates, files that cannot be used."""

import asyncio
import logging
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dynemo.errors import UsageError
from dynemo.http import certificates
from dynemo.http.certificates import CertificateFiles, fresh_context
from support.asgi_client import CHAT, Running, chat_body, make_app, run, running
from support.authority import Authority
from support.fake_pipeline import FakePipeline, say

pytestmark = pytest.mark.processes


@pytest.fixture(autouse=True)
def looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "_LOOK_SECONDS", 0.0)


@pytest.fixture
def folder(authority: Authority, tmp_path: Path) -> Path:
    """Returns a copy of a certificate's folder, which the test may change."""
    made = authority.issue(tmp_path.name)
    return Path(shutil.copytree(made, tmp_path / "tls"))


def files(folder: Path, *, has_clients: bool = False) -> CertificateFiles:
    ca = folder / "ca.crt" if has_clients else None
    return CertificateFiles(folder / "tls.crt", folder / "tls.key", ca)


@asynccontextmanager
async def serving(
    given: CertificateFiles, pipeline: FakePipeline | None = None
) -> AsyncIterator[Running]:
    async with running(make_app(pipeline or FakePipeline()), tls=fresh_context(given)) as server:
        yield server


class Client:
    """One connection, on which requests follow each other."""

    def __init__(self, server: Running, authority: Authority, own: Path | None = None) -> None:
        self.context = ssl.create_default_context(cafile=str(authority.ca))
        if own is not None:
            self.context.load_cert_chain(own / "tls.crt", own / "tls.key")
        self.port = server.port

    async def open(self, name: str | None = "localhost") -> str:
        """Returns the serial number of the server's certificate."""
        self.context.check_hostname = name is not None
        self.reader, self.writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.context, server_hostname=name or ""
        )
        return str(self.writer.get_extra_info("peercert")["serialNumber"])

    async def ask(self) -> bytes:
        body = chat_body()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)
        answer = await self.reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return answer + await self.reader.readexactly(length)

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


def replace(folder: Path, other: Path) -> None:
    for name in ("tls.crt", "tls.key"):
        shutil.copy(other / name, folder / name)


def test_a_certificate_is_replaced_while_streams_go_on(
    authority: Authority, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with serving(files(folder), FakePipeline([0.1, *say("a")])) as server:
            first, second, third = (Client(server, authority) for _ in range(3))
            old = await first.open()
            during = asyncio.create_task(first.ask())
            replace(folder, authority.issue(f"{tmp_path.name}-next"))
            new = await second.open()
            assert new != old
            assert await third.open(name=None) == new
            for answer in (await during, await first.ask(), await second.ask()):
                assert answer.startswith(b"HTTP/1.1 200")
            for client in (first, second, third):
                await client.close()

    run(scenario())


def test_broken_files_leave_the_certificate_in_use(
    authority: Authority, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = authority.issue(f"{tmp_path.name}-other")

    async def scenario() -> None:
        async with serving(files(folder)) as server:
            seen = set()

            async def look() -> None:
                for _ in range(2):
                    client = Client(server, authority)
                    seen.add(await client.open())
                    await client.close()

            await look()
            shutil.copy(other / "tls.crt", folder / "tls.crt")  # its key comes later
            await look()
            (folder / "tls.key").write_text("no key")
            await look()
            (folder / "tls.key").unlink()
            await look()
            assert len(seen) == 1
            shutil.copy(other / "tls.key", folder / "tls.key")
            await look()
            assert len(seen) == 2

    run(scenario())
    errors = [line.getMessage() for line in caplog.records if line.levelno == logging.ERROR]
    assert len(errors) == 3
    assert all("The certificate from before remains in use." in error for error in errors)


def test_client_certificates(authority: Authority, folder: Path, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "other").issue("stranger")

    async def scenario() -> None:
        async with serving(files(folder, has_clients=True)) as server:
            known = Client(server, authority, own=folder)
            await known.open()
            assert (await known.ask()).startswith(b"HTTP/1.1 200")
            await known.close()
            for own in (None, stranger):
                client = Client(server, authority, own=own)
                with pytest.raises((OSError, asyncio.IncompleteReadError)):
                    await _open_and_ask(client)

    run(scenario())


async def _open_and_ask(client: Client) -> None:
    """With TLS 1.3 a client learns only after its handshake that it is refused."""
    await client.open()
    await client.ask()


def test_plain_http_gets_no_answer(authority: Authority, folder: Path) -> None:
    async def scenario() -> None:
        async with serving(files(folder)) as server:
            reader, writer = await server.open()
            writer.write(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            async with asyncio.timeout(20):
                assert b"200" not in await reader.read()
            client = Client(server, authority)
            await client.open()
            assert (await client.ask()).startswith(b"HTTP/1.1 200")
            await client.close()

    run(scenario())


def test_a_key_in_the_file_of_the_certificate(authority: Authority, folder: Path) -> None:
    cert = folder / "tls.crt"
    cert.write_text(cert.read_text() + (folder / "tls.key").read_text())

    async def scenario() -> None:
        async with serving(CertificateFiles(cert, None, None)) as server:
            client = Client(server, authority)
            await client.open()
            assert (await client.ask()).startswith(b"HTTP/1.1 200")
            await client.close()

    run(scenario())


def test_files_that_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    cert, key = folder / "tls.crt", folder / "tls.key"
    for given in (
        CertificateFiles(tmp_path / "none", key, None),
        CertificateFiles(cert, tmp_path / "none", None),
        CertificateFiles(key, cert, None),
        CertificateFiles(cert, None, None),
        CertificateFiles(cert, key, tmp_path / "none"),
    ):
        with pytest.raises(UsageError, match=r"cannot be used for TLS"):
            fresh_context(given)
