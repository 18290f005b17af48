"""Opens the planes of a run: chooses the adapters and finds their servers from the settings."""

import os
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from dynemo.app.settings.options import Config
from dynemo.connection.addresses import ANY
from dynemo.connection.tls import client_context, connecting_context, files_of, server_context
from dynemo.errors import UsageError
from dynemo.planes.discovery.discovery import Discovery
from dynemo.planes.requests.base import RequestPlane, RequestServer
from dynemo.planes.requests.nats.client import NatsSettings
from dynemo.planes.requests.nats.plane import NatsRequests
from dynemo.planes.responses.ingresses import IngressConnections
from dynemo.planes.responses.listen import ResponseListener, listen
from dynemo.serving.ingress import Planes
from dynemo.spelling import quoted


def open_discovery(config: Config) -> AbstractAsyncContextManager[Discovery]:
    """Raises UsageError on entering if the server cannot be reached."""
    if config.discovery.startswith("file"):
        from dynemo.planes.discovery.file import open_file

        return open_file(_folder(config.discovery), lease_ttl=config.lease_ttl)
    from dynemo.planes.discovery.etcd.backend import open_etcd
    from dynemo.planes.discovery.etcd.connection import EtcdSettings, split_endpoints

    ca, cert, key = _files(config, "ETCD", is_tls="https://" in config.etcd)
    settings = EtcdSettings(
        endpoints=split_endpoints(config.etcd),
        user=os.environ.get("ETCD_AUTH_USERNAME", ""),
        password=os.environ.get("ETCD_AUTH_PASSWORD", ""),
        ca=ca,
        cert=cert,
        key=key,
    )
    return open_etcd(settings, lease_ttl=config.lease_ttl, wait=config.wait)


@asynccontextmanager
async def ingress_planes(config: Config) -> AsyncIterator[Planes]:
    """The planes of an ingress. Raises UsageError."""
    # With tcp the ingress dials its workers, and nobody dials it.
    is_dialled = config.plane != "tcp"
    host = _host(config) if is_dialled else "127.0.0.1"
    tls = _server_tls(config) if is_dialled else None
    async with (
        open_discovery(config) as discovery,
        listen(host, advertise=config.advertise if is_dialled else None, tls=tls) as responses,
        _requests(config, responses) as requests,
    ):
        yield Planes(discovery, requests, responses)


@asynccontextmanager
async def open_request_server(
    config: Config, ingresses: IngressConnections
) -> AsyncIterator[RequestServer]:
    """The server through which a worker gets its requests. Raises UsageError."""
    if config.plane == "tcp":
        from dynemo.planes.requests.tcp import tcp_request_server

        host, tls = _host(config), _server_tls(config)
        async with tcp_request_server(
            ingresses, host, advertise=config.advertise, tls=tls
        ) as server:
            yield server
        return
    async with open_nats(config) as requests:
        yield requests


@asynccontextmanager
async def _requests(config: Config, responses: ResponseListener) -> AsyncIterator[RequestPlane]:
    if config.plane == "tcp":
        from dynemo.planes.requests.tcp import TcpRequests

        yield TcpRequests(responses, dialling_tls(config))
        return
    async with open_nats(config) as requests:
        yield requests


def open_nats(config: Config) -> AbstractAsyncContextManager[NatsRequests]:
    """Raises UsageError on entering if no server can be reached."""
    from dynemo.planes.requests.nats.plane import nats_requests

    return nats_requests(_nats(config))


def _host(config: Config) -> str:
    """The address to listen on. Processes that share a folder are on one host."""
    return "127.0.0.1" if config.discovery.startswith("file") else ANY


def dialling_tls(config: Config) -> ssl.SSLContext | None:
    """For connections between workers and ingresses, at the dialling end. Raises UsageError."""
    return client_context(config.tls) if config.tls is not None else None


def _server_tls(config: Config) -> ssl.SSLContext | None:
    return server_context(config.tls) if config.tls is not None else None


def _files(
    config: Config, server: str, *, is_tls: bool
) -> tuple[Path | None, Path | None, Path | None]:
    """The authority's certificate, our certificate and its key, for `ETCD` or `NATS`.

    They come from the server's variables. Without any, a server under TLS gets those of --tls.
    """
    names = ("CA", "CLIENT_CERT", "CLIENT_KEY")
    ca, cert, key = (_path(f"{server}_AUTH_{name}") for name in names)
    if (cert is None) != (key is None):
        missing = "CLIENT_KEY" if key is None else "CLIENT_CERT"
        raise UsageError(
            f"{server}_AUTH_CLIENT_CERT and {server}_AUTH_CLIENT_KEY go together; "
            f"set {server}_AUTH_{missing} too."
        )
    if is_tls and config.tls is not None and ca is None and cert is None:
        return files_of(config.tls)
    return ca, cert, key


def _nats(config: Config) -> NatsSettings:
    is_tls = "tls://" in config.nats
    ca, cert, key = _files(config, "NATS", is_tls=is_tls)
    return NatsSettings(
        servers=tuple(part.strip() for part in config.nats.split(",") if part.strip()),
        credentials=os.environ.get("NATS_AUTH_CREDENTIALS_FILE"),
        user=os.environ.get("NATS_AUTH_USERNAME"),
        password=os.environ.get("NATS_AUTH_PASSWORD"),
        token=os.environ.get("NATS_AUTH_TOKEN"),
        nkey=os.environ.get("NATS_AUTH_NKEY"),
        tls=connecting_context(ca, cert, key) if is_tls or ca or cert else None,
        wait=config.wait,
    )


def _path(variable: str) -> Path | None:
    value = os.environ.get(variable)
    if not value:
        return None
    path = Path(value).expanduser()
    if not path.is_file():
        raise UsageError(f"{variable} names {quoted(value)}, which is not a file; give its path.")
    return path


def _folder(discovery: str) -> Path:
    """DIR of `file:DIR`; for `file`, a folder of the user's that does not outlive a reboot."""
    _, _, folder = discovery.partition(":")
    if folder:
        return Path(folder).expanduser()
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime) / "dynemo-run" / "discovery"
    return Path(tempfile.gettempdir()) / f"dynemo-run-{os.getuid()}" / "discovery"
