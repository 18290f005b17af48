"""Opens the HTTP server of a run, from its settings."""

import socket
from collections.abc import Iterable

from dynemo.app.settings.options import Config
from dynemo.errors import UsageError
from dynemo.http.access.access import Access
from dynemo.http.access.authority import parse_authority
from dynemo.http.access.hosts import hosts_of
from dynemo.http.access.origins import Origins, origins_of
from dynemo.http.bound_server import BoundServer
from dynemo.http.server import bind
from dynemo.spelling import quoted


def open_server(config: Config) -> BoundServer:
    """The server of in=http. Raises UsageError."""
    _check_hosts(config.allowed_host)
    origins = _origins(config.cors_origin)
    listener = bind(config.http_host, config.http_port)
    return BoundServer(listener, _access(config, config.http_host, listener, origins))


def open_status_server(config: Config) -> BoundServer:
    """The status port of a worker. Raises UsageError."""
    assert config.status_port is not None
    _check_hosts(config.allowed_host)
    host, port = config.status_port
    listener = bind(host, port, flag="--status-port")
    return BoundServer(listener, _access(config, host, listener, Origins()))


def _access(config: Config, host: str, listener: socket.socket, origins: Origins) -> Access:
    bound = listener.getsockname()[0]
    return Access(hosts_of(host, bound, config.allowed_host), origins)


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
