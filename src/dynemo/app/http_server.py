"""Opens the HTTP server of a run, from its settings."""

import logging
import socket
import ssl
from collections.abc import Iterable
from dataclasses import replace

from dynemo.app.settings.options import Config
from dynemo.errors import UsageError
from dynemo.http.access.access import Access
from dynemo.http.access.authority import parse_authority
from dynemo.http.access.hosts import Hosts, hosts_of
from dynemo.http.access.keys import Keys
from dynemo.http.access.origins import Origins, origins_of
from dynemo.http.bound_server import BoundServer
from dynemo.http.certificates import CertificateFiles, fresh_context
from dynemo.http.server import bind
from dynemo.spelling import quoted

_log = logging.getLogger("dynemo.http")


def open_server(config: Config) -> BoundServer:
    """The server of in=http. Raises UsageError."""
    _check_hosts(config.allowed_host)
    origins = _origins(config.cors_origin)
    keys = _keys(config)
    listener = bind(config.http_host, config.http_port)
    hosts = _hosts(config, config.http_host, listener)
    if keys is None and not hosts.is_loopback_only:
        _log.warning(
            "The server on %s answers everybody who can reach it; to ask for a key, set "
            "DYNEMO_API_KEY or give --api-key-file FILE.",
            config.http_host,
        )
    metrics = None
    if config.metrics_port is not None:
        metrics = _open_port(config, config.metrics_port, "--metrics-port")
    return BoundServer(listener, Access(hosts, origins, keys), _tls(config), metrics=metrics)


def open_status_server(config: Config) -> BoundServer:
    """The status port of a worker. Raises UsageError."""
    assert config.status_port is not None
    _check_hosts(config.allowed_host)
    keys = _keys(config)
    return replace(_open_port(config, config.status_port, "--status-port"), drain_keys=keys)


def _keys(config: Config) -> Keys | None:
    if config.api_key or config.api_key_file is not None:
        return Keys(config.api_key, config.api_key_file)
    return None


def _tls(config: Config) -> ssl.SSLContext | None:
    if config.tls_cert_path is None:
        return None
    files = CertificateFiles(config.tls_cert_path, config.tls_key_path, config.tls_client_ca_path)
    return fresh_context(files)


def _open_port(config: Config, where: tuple[str, int], flag: str) -> BoundServer:
    listener = bind(*where, flag=flag)
    return BoundServer(listener, Access(_hosts(config, where[0], listener)))


def _hosts(config: Config, host: str, listener: socket.socket) -> Hosts:
    return hosts_of(host, listener.getsockname()[0], config.allowed_host)


def _check_hosts(names: Iterable[str]) -> None:
    for name in names:
        try:
            if name != "*":
                parse_authority(name)
        except ValueError:
            raise UsageError(
                f"--allowed-host takes a host name, with a port or without, or `*`; "
                f"not {quoted(name)}."
            ) from None


def _origins(names: tuple[str, ...]) -> Origins:
    try:
        return origins_of(names)
    except ValueError:
        raise UsageError(
            "--cors-origin takes an origin such as https://chat.example or app://, `null` or `*`; "
            f"not {quoted(', '.join(names))}."
        ) from None
