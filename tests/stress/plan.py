"""The plan of a chaos run: which fault happens when. Equal seeds make equal plans."""

import random
from dataclasses import dataclass

WORKERS = 6
INGRESSES = 3

#: Workers that no fault touches at any time, so that each stream can always continue.
_SPARED = 2
#: Seconds after its end in which a fault still counts: processes start, and leases run out.
_RECOVERY = {"worker": 6.0, "host": 5.0, "ingress": 8.0, "etcd": 5.0, "nats": 5.0}
_DRAINS = 20.0  #: seconds in which the streams of a stopped ingress end
_LEAD, _TAIL = 3.0, 14.0  #: seconds without faults at the start and at the end


@dataclass(frozen=True)
class Fault:
    """`kind` is a verb and a part: `kill worker`, `freeze host`, `wipe etcd`, ..."""

    at: float  #: seconds after the start
    seconds: float  #: until it is healed
    kind: str
    target: int  #: the number of the worker or of the ingress; 0 for etcd and NATS

    @property
    def part(self) -> str:
        return self.kind.split()[1]

    def __str__(self) -> str:
        which = f" {self.target}" if self.part in ("worker", "host", "ingress") else ""
        return f"{self.at:6.1f} s  {self.kind}{which} for {self.seconds:.1f} s"


@dataclass(frozen=True)
class _Choice:
    kind: str
    weight: int
    shortest: float
    longest: float  #: seconds


#: A host is the engine host of a worker. `cut` loses the packets of a worker silently. The request
#: plane stays away for less than the time that a request waits for it.
_CHOICES = (
    _Choice("kill worker", 6, 0.5, 4),
    _Choice("stop worker", 4, 0.5, 3),
    _Choice("freeze worker", 5, 0.5, 12),
    _Choice("cut worker", 4, 1, 12),
    _Choice("kill host", 6, 0.1, 0.1),
    _Choice("freeze host", 4, 1, 12),
    _Choice("kill etcd", 2, 0.5, 8),
    _Choice("wipe etcd", 1, 0.5, 4),
    _Choice("kill nats", 2, 0.3, 5),
    _Choice("freeze nats", 2, 0.5, 5),
    _Choice("kill ingress", 1, 0.5, 3),
    _Choice("stop ingress", 2, 0.5, 3),
)


def make_plan(seed: int, seconds: float, *, can_cut: bool) -> list[Fault]:
    """Returns the faults of a run, in order. Without network namespaces nothing can be cut."""
    chance = random.Random(seed)
    choices = [choice for choice in _CHOICES if can_cut or choice.kind != "cut worker"]
    busy: dict[tuple[str, int], float] = {}  # what a fault touches, until when
    plan: list[Fault] = []
    now = _LEAD
    while (now := now + chance.uniform(0.4, 2.5)) < seconds - _TAIL:
        choice = chance.choices(choices, [each.weight for each in choices])[0]
        lasts = min(chance.uniform(choice.shortest, choice.longest), seconds - _TAIL - now)
        target = chance.randrange(INGRESSES if choice.kind.endswith("ingress") else WORKERS)
        fault = Fault(now, max(lasts, 0.1), choice.kind, target)
        place = _place(fault)
        busy = {each: until for each, until in busy.items() if until > now}
        alike = sum(each[0] == place[0] for each in busy)
        room = {"worker": WORKERS - _SPARED, "ingress": 1, "server": 1}[place[0]]
        if place not in busy and alike < room:
            busy[place] = now + fault.seconds + _RECOVERY[fault.part]
            busy[place] += _DRAINS if fault.kind == "stop ingress" else 0
            plan.append(Fault(*_rounded(fault)))
    return plan


def _rounded(fault: Fault) -> tuple[float, float, str, int]:
    target = 0 if fault.part in ("etcd", "nats") else fault.target
    return round(fault.at, 2), round(fault.seconds, 2), fault.kind, target


def _place(fault: Fault) -> tuple[str, int]:
    """A worker and its engine host are one place; so are etcd and NATS."""
    match fault.part:
        case "worker" | "host":
            return "worker", fault.target
        case "ingress":
            return "ingress", fault.target
        case _:
            return "server", 0
