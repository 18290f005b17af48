"""The planes of a run, opened as the settings say: which adapters, and where their servers are."""

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
from dynemo.planes.responses.answering import IngressConnections
from dynemo.planes.responses.listen import ResponseListener, listen
from dynemo.serving.ingress import Planes


def open_discovery(config: Config) -> AbstractAsyncContextManager[Discovery]:
    """Raises UsageError on entering, where its server cannot be reached."""
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
    """All that an ingress stands on. Raises UsageError."""
    # Where it dials itself, nobody dials it.
    is_dialled = config.plane != "tcp"
    where = _host(config) if is_dialled else "127.0.0.1"
    tls = _server_tls(config) if is_dialled else None
    async with (
        open_discovery(config) as discovery,
        listen(where, advertise=config.advertise if is_dialled else None, tls=tls) as responses,
        _requests(config, responses) as requests,
    ):
        yield Planes(discovery, requests, responses)


@asynccontextmanager
async def open_intake(config: Config, answers: IngressConnections) -> AsyncIterator[RequestServer]:
    """Where a worker takes its requests. Raises UsageError."""
    if config.plane == "tcp":
        from dynemo.planes.requests.tcp import tcp_request_server

        where, tls = _host(config), _server_tls(config)
        async with tcp_request_server(
            answers, where, advertise=config.advertise, tls=tls
        ) as intake:
            yield intake
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
    """Raises UsageError on entering, where no server can be reached."""
    from dynemo.planes.requests.nats.plane import nats_requests

    return nats_requests(_nats(config))


def _host(config: Config) -> str:
    """A folder is on one host, and so is who reads it."""
    return "127.0.0.1" if config.discovery.startswith("file") else ANY


def dialling_tls(config: Config) -> ssl.SSLContext | None:
    """For what a worker or an ingress dials of the other. Raises UsageError."""
    return client_context(config.tls) if config.tls is not None else None


def _server_tls(config: Config) -> ssl.SSLContext | None:
    return server_context(config.tls) if config.tls is not None else None


def _files(
    config: Config, server: str, *, is_tls: bool
) -> tuple[Path | None, Path | None, Path | None]:
    """The authority's certificate, ours and its key, for `ETCD` or `NATS`: those of its variables,
    or, where its address says TLS and no variable anything else, those of --tls."""
    names = ("CA", "CLIENT_CERT", "CLIENT_KEY")
    ca, cert, key = (_path(f"{server}_AUTH_{name}") for name in names)
    if (cert is None) != (key is None):
        raise UsageError(f"{server}_AUTH_CLIENT_CERT and {server}_AUTH_CLIENT_KEY go together.")
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
        raise UsageError(f"{variable} names {value}, which is no file.")
    return path


def _folder(word: str) -> Path:
    """`file:DIR`, or one of the user's own that goes with the machine's next start."""
    _, _, where = word.partition(":")
    if where:
        return Path(where).expanduser()
    own = os.environ.get("XDG_RUNTIME_DIR")
    if own:
        return Path(own) / "dynemo-run" / "discovery"
    return Path(tempfile.gettempdir()) / f"dynemo-run-{os.getuid()}" / "discovery"
