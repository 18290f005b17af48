"""A server whose port is open and whose app does not run yet: made before an engine is loaded."""

import socket
from dataclasses import dataclass

from dynemo.http.access.access import Access


@dataclass(frozen=True)
class BoundServer:
    listener: socket.socket
    access: Access

    @property
    def url(self) -> str:
        host, port = self.listener.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"
