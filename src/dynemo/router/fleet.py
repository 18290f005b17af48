"""The instances of one model, how busy each is, and quick picks among them.

Nothing here costs more with more instances: a pick is a draw, or two, or a scan of at most
`SCANNED`. Where instances are excluded, it costs at most one step more for each of those.
"""

from collections.abc import Callable, Collection
from itertools import count

from dynemo.messages.records import Load

#: Up to so many instances the least loaded one is looked for among all; above, between two drawn
#: at random, which comes close to it and also keeps ingresses from all taking the same one.
SCANNED = 16
#: Draws before excluded instances are passed over in order.
DRAWS = 4


class Member:
    """One instance. `serial` is never given again, so that an id that comes back is another."""

    __slots__ = ("elsewhere", "id", "in_flight", "load", "place", "pressure", "serial")

    def __init__(self, instance_id: str, serial: int) -> None:
        self.id = instance_id
        self.serial = serial
        self.place = 0
        self.in_flight = 0  #: what this ingress has asked of it
        self.elsewhere = 0  #: what others have, as far as its last report tells
        self.pressure = 0.0
        self.load = 0.0  #: in requests; see `weigh`

    def report(self, load: Load) -> None:
        self.elsewhere = max(0, load.running + load.waiting - self.in_flight)
        # Its queue counts once more: an instance that lets requests wait is full, whatever its
        # size. A full cache counts as one request.
        self.pressure = load.waiting + load.kv_use
        self.weigh()

    def weigh(self) -> None:
        self.load = self.in_flight + self.elsewhere + self.pressure


class Fleet:
    """`draw` gives uniform numbers from 0 up to 1."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw
        self._serials = count()
        self._members: list[Member] = []
        self._by_id: dict[str, Member] = {}
        # Left, with requests under way: they still count if the instance comes back.
        self._unfinished: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._members)

    def get(self, instance_id: str) -> Member | None:
        return self._by_id.get(instance_id)

    def add(self, instance_id: str) -> Member:
        """Adding one that is there already changes nothing."""
        if (member := self._by_id.get(instance_id)) is None:
            member = self._by_id[instance_id] = Member(instance_id, next(self._serials))
            member.place = len(self._members)
            member.in_flight = self._unfinished.pop(instance_id, 0)
            member.weigh()
            self._members.append(member)
        return member

    def remove(self, instance_id: str) -> Member | None:
        """What was removed; None where there was no such instance."""
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
        """Any that is not excluded; None where there is none."""
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
        """The least loaded (above `SCANNED` instances: of two) that is not excluded, or None."""
        if len(self._members) > SCANNED:
            one, other = self.random(exclude), self.random(exclude)
            if one is None or other is None:
                return None
            return other if other.load < one.load else one
        # From a random place on, so that equals share.
        start = int(self._draw() * len(self._members))
        best: Member | None = None
        for member in self._members[start:] + self._members[:start]:
            if (best is None or member.load < best.load) and member.id not in exclude:
                best = member
        return best
