"""The instances of one model with their loads, and fast choices among them.

No operation becomes slower with more instances: a choice is one random draw, two draws, or a scan
of at most `SCANNED` instances. Each excluded instance adds at most one step.
"""

from collections.abc import Callable, Collection
from itertools import count

from dynemo.messages.records import Load, LoadReport

#: Up to this many instances, all are scanned for the least loaded one. Above it, two are drawn at
#: random and compared. This is nearly as good, and keeps ingresses from all choosing the same one.
SCANNED = 16
#: The weight of a request from another ingress. Its report is older than our own count, and other
#: ingresses act on the same report: with 1.0, all of them would choose the same instance.
TRUST = 0.8
#: Random draws before the search continues in order past excluded instances.
DRAWS = 4


class Member:
    """One instance. A `serial` is never reused, so an id that returns counts as a new instance."""

    __slots__ = ("_last", "elsewhere", "id", "in_flight", "load", "place", "pressure", "serial")

    def __init__(self, instance_id: str, serial: int) -> None:
        self.id = instance_id
        self.serial = serial
        self.place = 0
        self.in_flight = 0  #: requests from this ingress
        self.elsewhere = 0.0  #: requests from others, according to its last report
        self.pressure = 0.0
        self.load = 0.0  #: in requests; see `weigh`
        self._last: Load | None = None

    def report(self, load: Load) -> None:
        if load is self._last:
            return  # its own requests may have ended since
        self._last = load
        if isinstance(load, LoadReport) and load.streams is not None:
            elsewhere = load.streams - load.own
        else:
            elsewhere = load.running + load.waiting - self.in_flight
        self.elsewhere = TRUST * max(0, elsewhere)
        # The queue counts twice: an instance whose requests wait is full, whatever its size. A full
        # cache counts as one request.
        self.pressure = load.waiting + load.kv_use
        self.weigh()

    def weigh(self) -> None:
        self.load = self.in_flight + self.elsewhere + self.pressure


class Fleet:
    """The instances of one model. `draw` returns uniform random numbers in [0, 1)."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw
        self._serials = count()
        self._members: list[Member] = []
        self._by_id: dict[str, Member] = {}
        # Requests in flight on removed instances. They count again if the instance returns.
        self._unfinished: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._members)

    def get(self, instance_id: str) -> Member | None:
        return self._by_id.get(instance_id)

    def add(self, instance_id: str) -> Member:
        """Adds an instance. Adding it again changes nothing."""
        if (member := self._by_id.get(instance_id)) is None:
            member = self._by_id[instance_id] = Member(instance_id, next(self._serials))
            member.place = len(self._members)
            member.in_flight = self._unfinished.pop(instance_id, 0)
            member.weigh()
            self._members.append(member)
        return member

    def remove(self, instance_id: str) -> Member | None:
        """Removes an instance and returns it, or None if it is unknown."""
        member = self._by_id.pop(instance_id, None)
        if member is not None:
            last = self._members.pop()
            if last is not member:
                self._members[member.place] = last
                last.place = member.place
            if member.in_flight:
                self._unfinished[instance_id] = member.in_flight
        return member

    def started(self, instance_id: str) -> None:
        if member := self._by_id.get(instance_id):
            member.in_flight += 1
            member.weigh()
        else:
            self._unfinished[instance_id] = self._unfinished.get(instance_id, 0) + 1

    def ended(self, instance_id: str) -> None:
        if member := self._by_id.get(instance_id):
            member.in_flight = max(0, member.in_flight - 1)
            member.weigh()
        elif (left := self._unfinished.pop(instance_id, 0) - 1) > 0:
            self._unfinished[instance_id] = left

    def reported(self, instance_id: str, load: Load) -> None:
        if member := self._by_id.get(instance_id):
            member.report(load)

    def random(self, exclude: Collection[str] = ()) -> Member | None:
        """Returns a random instance that is not excluded, or None."""
        members = self._members
        size = len(members)
        if not size:
            return None
        if not exclude:
            return members[int(self._draw() * size)]
        place = 0
        for _ in range(DRAWS):
            place = int(self._draw() * size)
            if members[place].id not in exclude:
                return members[place]
        for step in range(1, size):
            member = members[(place + step) % size]
            if member.id not in exclude:
                return member
        return None

    def lightest(self, exclude: Collection[str] = ()) -> Member | None:
        """Returns the least loaded instance that is not excluded, or None.

        Above `SCANNED` instances it compares only two.
        """
        if len(self._members) > SCANNED:
            one, other = self.random(exclude), self.random(exclude)
            if one is None or other is None:
                return None
            return other if other.load < one.load else one
        # The scan starts at a random position, so that equal instances share the load.
        start = int(self._draw() * len(self._members))
        best: Member | None = None
        for member in self._members[start:] + self._members[:start]:
            if (best is None or member.load < best.load) and member.id not in exclude:
                best = member
        return best
