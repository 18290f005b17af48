"""Peers that a log line has named already, so that a problem is logged once for each peer."""

from collections.abc import Hashable

_MAX_PEERS = 1024


class LoggedPeers:
    """A bounded set: the oldest peer makes room for a new one."""

    def __init__(self) -> None:
        self._peers: dict[Hashable, None] = {}

    def is_new(self, peer: Hashable) -> bool:
        """Whether the peer is not in the set yet; adds it."""
        if peer in self._peers:
            return False
        if len(self._peers) >= _MAX_PEERS:
            del self._peers[next(iter(self._peers))]
        self._peers[peer] = None
        return True

    def forget(self, peer: Hashable) -> None:
        """The problem is over: the next one is logged again."""
        self._peers.pop(peer, None)
