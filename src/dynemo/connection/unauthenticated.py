"""Connections whose peer has not said who it is yet: no more than a few, the oldest goes first.

So somebody who opens many and says nothing shuts nobody out: who has a HELLO to say says it at
once.
"""

from dynemo.connection.framed import FramedConnection

MAX_UNAUTHENTICATED = 256


class UnauthenticatedConnections:
    def __init__(self) -> None:
        self._links: dict[FramedConnection, None] = {}

    def add(self, link: FramedConnection) -> None:
        if len(self._links) >= MAX_UNAUTHENTICATED:
            oldest = next(iter(self._links))
            del self._links[oldest]
            oldest.abort()
        self._links[link] = None

    def remove(self, link: FramedConnection) -> None:
        """It has greeted, or gone. Allowed for one that is not here."""
        self._links.pop(link, None)

    def close(self) -> None:
        for link in list(self._links):
            link.abort()
