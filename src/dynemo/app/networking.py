"""Opens the planes of a run: chooses the adapters and finds their servers from the settings."""

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from dynemo.app.settings.options import Config
from dynemo.connection.addresses import ANY, LOOPBACK, host_of
from dynemo.connection.permitted import is_loopback
from dynemo.connection.tls import client_context, connecting_context, server_context, server_files
from dynemo.planes.discovery.backends import DiscoverySettings, open_backend, split_backend
from dynemo.planes.discovery.discovery import Discovery
from dynemo.planes.requests.base import RequestPlane, RequestServer
from dynemo.planes.requests.nats.client import NatsSettings
from dynemo.planes.requests.nats.plane import NatsRequests
from dynemo.planes.responses.ingresses import IngressConnections
from dynemo.planes.responses.listen import ResponseListener, TokenTimeouts, listen
from dynemo.serving.ingress import Planes


def open_discovery(config: Config) -> AbstractAsyncContextManager[Discovery]:
    """Raises UsageError on entering if the server cannot be reached."""
    name, argument = split_backend(config.discovery)
    settings = DiscoverySettings(
        argument=argument,
        servers=config.etcd,
        tls=config.tls,
        environment=os.environ,
        lease_ttl=config.lease_ttl,
        wait=config.wait,
    )
    return open_backend(name, settings)


@asynccontextmanager
async def ingress_planes(config: Config) -> AsyncIterator[Planes]:
    """The planes of an ingress. Raises UsageError."""
    # With tcp the ingress dials its workers, and nobody dials it.
    is_dialled = config.plane != "tcp"
    host = _host(config) if is_dialled else LOOPBACK
    tls = _server_tls(config) if is_dialled else None
    async with (
        open_discovery(config) as discovery,
        listen(host, advertise=config.advertise if is_dialled else None, tls=tls) as responses,
        _requests(config, responses) as requests,
    ):
        responses.token_timeouts = TokenTimeouts(config.first_token_timeout, config.token_timeout)
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
    """The address to listen on. Processes that share a folder are on one host, and so are those
    that share servers on loopback. A certificate rarely names loopback, so TLS listens anywhere."""
    is_alone = config.is_local or (
        config.advertise is None and config.tls is None and _has_servers_here(config)
    )
    return LOOPBACK if is_alone else ANY


def _has_servers_here(config: Config) -> bool:
    """Whether all servers of the run are on loopback."""
    servers = config.etcd if config.plane == "tcp" else f"{config.etcd},{config.nats}"
    named = [server.strip() for server in servers.split(",") if server.strip()]
    return all(is_loopback(host_of(server)) for server in named)


def dialling_tls(config: Config) -> ssl.SSLContext | None:
    """For connections between workers and ingresses, at the dialling end. Raises UsageError."""
    return client_context(config.tls) if config.tls is not None else None


def _server_tls(config: Config) -> ssl.SSLContext | None:
    return server_context(config.tls) if config.tls is not None else None


def _nats(config: Config) -> NatsSettings:
    is_tls = "tls://" in config.nats
    ca, cert, key = server_files(os.environ, "NATS", config.tls if is_tls else None)
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
