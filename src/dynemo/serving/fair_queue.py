"""A queue in which clients take turns. Pure.

- The next turn is of the client with the fewest sequences at the engine now. Of several such
  clients, it is of the one whose sequences have held the engine for the least time.
- So two clients with many long sequences get half of the engine each. If a third client sends a
  short request, its turn comes as soon as a sequence ends.
- A client that comes, or comes back, starts level with the client that had the last turn. It gets
  no credit for the time before.
- Within one client, the lower priority is first, then the earlier arrival. A priority moves no
  client before another.
"""

from bisect import bisect_left, insort
from itertools import count
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Entry(NamedTuple, Generic[T]):
    """One waiting sequence. Entries sort by priority, then by arrival, which is unique."""

    priority: int
    arrival: int
    item: T


class _Client(Generic[T]):
    __slots__ = ("entries", "key", "running", "turn", "used")

    def __init__(self, used: float, turn: int) -> None:
        self.running = 0
        self.used = used  # seconds of the engine; see `FairQueue.ended`
        self.turn = turn  # unique: the number of its last turn, or of its arrival
        self.entries: list[Entry[T]] = []
        self.key: tuple[int, float, int, str] | None = None  # its place in the order


class FairQueue(Generic[T]):
    """Counts the sequences at the engine, and orders those that wait."""

    def __init__(self) -> None:
        self._clients: dict[str, _Client[T]] = {}  # those that run or wait
        self._order: list[tuple[int, float, int, str]] = []  # of those that wait; sorted
        self._turns = count(1)
        self._level = 0.0  # what the client of the last turn had used
        self._waiting = 0
        self.running = 0  #: sequences at the engine

    def __len__(self) -> int:
        """The number of entries."""
        return self._waiting

    def has(self, client: str) -> bool:
        """Whether something of this client waits."""
        found = self._clients.get(client)
        return found is not None and bool(found.entries)

    def started(self, client: str) -> None:
        """A sequence of the client goes to the engine without a wait."""
        one = self._client(client)
        self._start(one)
        self._settle(client, one)

    def ended(self, client: str, seconds: float) -> None:
        """A sequence of the client has left the engine, where it was for so long."""
        one = self._clients[client]
        one.running -= 1
        one.used += seconds
        self.running -= 1
        self._settle(client, one)

    def push(self, client: str, entry: Entry[T]) -> None:
        one = self._client(client)
        insort(one.entries, entry)
        self._waiting += 1
        self._settle(client, one)

    def discard(self, client: str, entry: Entry[T]) -> None:
        """Removes an entry. Does nothing if it is not in the queue."""
        one = self._clients.get(client)
        at = 0 if one is None else bisect_left(one.entries, entry[:2])
        if one is not None and at < len(one.entries) and one.entries[at] is entry:
            del one.entries[at]
            self._waiting -= 1
            self._settle(client, one)

    def pop(self) -> tuple[str, Entry[T]]:
        """Takes the next entry of a queue that has one, and counts it as started. Returns its
        client, too."""
        client = self._order[0][-1]
        one = self._clients[client]
        entry = one.entries.pop(0)
        self._waiting -= 1
        self._start(one)
        self._settle(client, one)
        return client, entry

    def _client(self, name: str) -> _Client[T]:
        found = self._clients.get(name)
        if found is None:
            found = self._clients[name] = _Client(self._level, next(self._turns))
        return found

    def _start(self, one: _Client[T]) -> None:
        one.running += 1
        one.turn = next(self._turns)
        self.running += 1
        self._level = one.used

    def _settle(self, name: str, one: _Client[T]) -> None:
        """Updates the client's place in the order. Forgets a client that has nothing."""
        if one.key is not None:
            del self._order[bisect_left(self._order, one.key)]
            one.key = None
        if one.entries:
            one.key = (one.running, one.used, one.turn, name)
            insort(self._order, one.key)
        elif not one.running:
            del self._clients[name]
