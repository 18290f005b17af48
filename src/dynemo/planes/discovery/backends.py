"""The discovery backends, by the names of `--discovery`. Imports none of them.

A backend is a module with `open_backend(settings)`, which gives an async context manager around a
`Discovery`. Entering raises UsageError if the backend cannot be used.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from dynemo.spelling import either


@dataclass(frozen=True)
class DiscoveryBackend:
    module: str
    argument: str = ""  #: the metavar of the text after `NAME:`; empty: it takes none
    is_local: bool = False  #: its processes share one host


BACKENDS = {
    "etcd": DiscoveryBackend("dynemo.planes.discovery.etcd.backend"),
    "file": DiscoveryBackend("dynemo.planes.discovery.file", "DIR", is_local=True),
}


@dataclass(frozen=True)
class DiscoverySettings:
    """Everything that a run knows about its discovery."""

    argument: str  #: the text after `NAME:`
    servers: str  #: of --etcd
    tls: Path | None  #: the folder of --tls
    environment: Mapping[str, str]  #: variables such as ETCD_AUTH_USERNAME
    lease_ttl: float  #: seconds
    wait: float  #: seconds that a server may take to answer


def split_backend(text: str) -> tuple[str, str]:
    """`file:DIR` as name and argument. Raises ValueError for an unknown backend, with the forms
    that exist."""
    name, colon, argument = text.partition(":")
    if name not in BACKENDS or (colon and not BACKENDS[name].argument):
        raise ValueError(forms())
    return name, argument


def open_backend(name: str, settings: DiscoverySettings) -> AbstractAsyncContextManager[Any]:
    """The `Discovery` of this backend. Entering raises UsageError."""
    module = import_module(BACKENDS[name].module)
    opened: AbstractAsyncContextManager[Any] = module.open_backend(settings)
    return opened


def forms() -> str:
    """The forms of `--discovery`: `etcd, file or file:DIR`."""
    listed = []
    for name, backend in BACKENDS.items():
        listed += [name, f"{name}:{backend.argument}"] if backend.argument else [name]
    return either(listed)


def local_names() -> str:
    """The backends whose processes share one host, for a message: `file`."""
    return either(name for name, backend in BACKENDS.items() if backend.is_local)
