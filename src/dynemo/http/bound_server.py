"""A server whose port is open and whose app does not run yet: made before an engine is loaded."""

import socket
import ssl
from dataclasses import dataclass

from dynemo.http.access.access import Access
from dynemo.http.access.keys import Keys


@dataclass(frozen=True)
class BoundServer:
    listener: socket.socket
    access: Access
    tls: ssl.SSLContext | None = None  #: None: HTTP
    drain_keys: Keys | None = None  #: of a status port: the keys for `/drain`
    metrics: "BoundServer | None" = None  #: a port of its own for `/metrics`

    @property
    def url(self) -> str:
        host, port = self.listener.getsockname()[:2]
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
