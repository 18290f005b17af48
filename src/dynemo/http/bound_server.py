"""A server whose port is open and whose app does not run yet: made before an engine is loaded."""

import socket
import ssl
from dataclasses import dataclass

from dynemo.http.access.access import Access


@dataclass(frozen=True)
class BoundServer:
    listener: socket.socket
    access: Access
    tls: ssl.SSLContext | None = None  #: None: HTTP
    metrics: "BoundServer | None" = None  #: a port of its own for `/metrics`

    @property
    def url(self) -> str:
        host, port = self.listener.getsockname()[:2]
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
