"""The share of one ingress in the slots of its instances."""

from collections.abc import Callable, Sequence
from time import monotonic

from dynemo.messages.records import Load, LoadReport
from dynemo.serving.instance import InstanceStatus

_COUNT_SECONDS = 0.25  # between two counts: a pool may have a thousand instances


class OwnShare:
    """The share in the instances that `read` gives. Call `changed` when one has come or gone."""

    def __init__(self, read: Callable[[], Sequence[InstanceStatus]]) -> None:
        self._read = read
        self._slots = 0
        self._next = 0.0

    def changed(self) -> None:
        self._next = 0.0

    @property
    def slots(self) -> int:
        now = monotonic()
        if now >= self._next:
            self._next = now + _COUNT_SECONDS
            self._slots = own_share(self._read())
        return self._slots


def own_share(instances: Sequence[InstanceStatus]) -> int:
    """Returns the slots of all ready instances without those that other ingresses use.

    It is at least half of them, so that an ingress that came first does not keep out the others.
    Without a ready instance all count: the pool tries them, and says why they fail.
    """
    ready = [status for status in instances if status.state == "ready"] or instances
    slots = sum(status.instance.slots for status in ready)
    others = sum(_elsewhere(status.load) for status in ready)
    return max(slots - others, (slots + 1) // 2)


def _elsewhere(load: Load) -> int:
    """Returns the answers for others. Workers of protocol 1 do not report them."""
    if isinstance(load, LoadReport) and load.streams is not None:
        return max(0, load.streams - load.own)
    return 0
