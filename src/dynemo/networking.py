"""The planes of a run, opened as the settings say: which adapters, and where their servers are."""

import os
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from dynemo.config import Config
from dynemo.errors import UsageError
from dynemo.ingress import Planes
from dynemo.runtime.discovery.discovery import Discovery
from dynemo.runtime.requests.base import Intake, RequestPlane
from dynemo.runtime.requests.nats import NatsRequests, NatsSettings
from dynemo.runtime.responses.answering import Answering
from dynemo.runtime.responses.listen import Responses, listen


def open_discovery(config: Config) -> AbstractAsyncContextManager[Discovery]:
    """Raises UsageError on entering, where its server cannot be reached."""
    if config.discovery.startswith("file"):
        from dynemo.runtime.discovery.file import open_file

        return open_file(_folder(config.discovery), lease_ttl=config.lease_ttl)
    from dynemo.runtime.discovery.etcd import open_etcd
    from dynemo.runtime.discovery.etcd_connection import EtcdSettings, split_endpoints

    settings = EtcdSettings(
        endpoints=split_endpoints(config.etcd),
        user=os.environ.get("ETCD_AUTH_USERNAME", ""),
        password=os.environ.get("ETCD_AUTH_PASSWORD", ""),
        ca=_path("ETCD_AUTH_CA"),
        cert=_path("ETCD_AUTH_CLIENT_CERT"),
        key=_path("ETCD_AUTH_CLIENT_KEY"),
    )
    return open_etcd(settings, lease_ttl=config.lease_ttl, wait=config.wait)


@asynccontextmanager
async def ingress_planes(config: Config) -> AsyncIterator[Planes]:
    """All that an ingress stands on. Raises UsageError."""
    async with (
        open_discovery(config) as discovery,
        listen(_host(config), advertise=config.advertise) as responses,
        _requests(config, responses) as requests,
    ):
        yield Planes(discovery, requests, responses)


@asynccontextmanager
async def open_intake(config: Config, answers: Answering) -> AsyncIterator[Intake]:
    """Where a worker takes its requests. Raises UsageError."""
    if _plane(config) == "tcp":
        from dynemo.runtime.requests.tcp import tcp_intake

        async with tcp_intake(answers, _host(config), advertise=config.advertise) as intake:
            yield intake
        return
    async with open_nats(config) as requests:
        yield requests


@asynccontextmanager
async def _requests(config: Config, responses: Responses) -> AsyncIterator[RequestPlane]:
    if _plane(config) == "tcp":
        from dynemo.runtime.requests.tcp import TcpRequests

        yield TcpRequests(responses)
        return
    async with open_nats(config) as requests:
        yield requests


def open_nats(config: Config) -> AbstractAsyncContextManager[NatsRequests]:
    """Raises UsageError on entering, where no server can be reached."""
    from dynemo.runtime.requests.nats import nats_requests

    return nats_requests(_nats(config))


def _plane(config: Config) -> str:
    """TCP where discovery is a folder: somebody without etcd has no NATS either."""
    return config.request_plane or ("tcp" if config.discovery.startswith("file") else "nats")


def _host(config: Config) -> str:
    """A folder is on one host, and so is who reads it."""
    return "127.0.0.1" if config.discovery.startswith("file") else "0.0.0.0"


def _nats(config: Config) -> NatsSettings:
    ca = _path("NATS_AUTH_CA")
    return NatsSettings(
        servers=tuple(part.strip() for part in config.nats.split(",") if part.strip()),
        credentials=os.environ.get("NATS_AUTH_CREDENTIALS_FILE"),
        user=os.environ.get("NATS_AUTH_USERNAME"),
        password=os.environ.get("NATS_AUTH_PASSWORD"),
        token=os.environ.get("NATS_AUTH_TOKEN"),
        tls=ssl.create_default_context(cafile=ca) if ca else None,
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
