"""The knowledge of a watcher, and the changes that it reports. Pure: no clock and no store.

    the first listing    reports everything at once
    a later listing      reports new and different keys at once; a missing key gets a grace, and is
                         reported as deleted after it
    a put                is reported unless nothing differs; ends a grace
    a delete             is reported at once, in a grace or not

After a lost connection, a missing key proves little: a store that came back without its data has no
keys, and their owners, who are alive, put them again within a lease's time.
"""

from collections.abc import Iterable, Mapping

from dynemo.planes.discovery.base import Change


class View:
    """The view of one watcher. Times are seconds of one monotonic clock."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._known: dict[str, bytes] = {}
        self._missing: dict[str, float] = {}  # when its grace ends

    def refresh(self, listing: Mapping[str, bytes], now: float) -> list[Change]:
        absent = [key for key in self._known if key not in listing]
        self._missing = dict.fromkeys(absent, now + self._grace)
        return self.apply(Change(key, value) for key, value in listing.items())

    def apply(self, changes: Iterable[Change]) -> list[Change]:
        """The changes that differ from what is known. Updates what is known."""
        reported = []
        for change in changes:
            self._missing.pop(change.key, None)
            if change.value == self._known.get(change.key):
                continue
            if change.value is None:
                del self._known[change.key]
            else:
                self._known[change.key] = change.value
            reported.append(change)
        return reported

    def due(self, now: float) -> list[Change]:
        """Deletes of the keys whose grace is over."""
        over = [key for key, at in self._missing.items() if at <= now]
        return self.apply([Change(key, None) for key in over])

    def wait(self, now: float) -> float | None:
        """Seconds until `due` reports something; None if nothing is missing."""
        return max(0.0, min(self._missing.values()) - now) if self._missing else None
