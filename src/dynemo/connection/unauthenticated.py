"""Connections whose peer has not sent a valid HELLO yet. Their number is bounded.

A client that opens many connections and sends nothing shuts nobody out: a new connection closes the
oldest of them, and a peer with a valid HELLO sends it at once.
"""

from dynemo.connection.framed import FramedConnection

MAX_UNAUTHENTICATED = 256


class UnauthenticatedConnections:
    def __init__(self) -> None:
        self._connections: dict[FramedConnection, None] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, connection: FramedConnection) -> None:
        if len(self._connections) >= MAX_UNAUTHENTICATED:
            oldest = next(iter(self._connections))
            del self._connections[oldest]
            oldest.abort()
        self._connections[connection] = None

    def remove(self, connection: FramedConnection) -> None:
        """For a connection that has greeted or closed. Does nothing if it is not here."""
        self._connections.pop(connection, None)

    def close(self) -> None:
        for connection in list(self._connections):
            connection.abort()
