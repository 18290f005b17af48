"""Connections whose peer has not said who it is yet: no more than a few, the oldest goes first.

So somebody who opens many and says nothing shuts nobody out: who has a HELLO to say says it at
once.
"""

from dynemo.link import Link

MAX_STRANGERS = 256


class Strangers:
    def __init__(self) -> None:
        self._links: dict[Link, None] = {}

    def add(self, link: Link) -> None:
        if len(self._links) >= MAX_STRANGERS:
            oldest = next(iter(self._links))
            del self._links[oldest]
            oldest.abort()
        self._links[link] = None

    def remove(self, link: Link) -> None:
        """It has greeted, or gone. Allowed for one that is not here."""
        self._links.pop(link, None)

    def close(self) -> None:
        for link in list(self._links):
            link.abort()
