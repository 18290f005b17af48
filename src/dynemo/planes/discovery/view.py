"""What a watcher knows, and what it may say of it. Pure: values and times in, changes out.

    listing (first)      -> everything, at once
    listing (later)      -> what is new or different, at once;
                            what is missing is kept for a grace, then said to be gone
    a put                -> said, unless nothing differs; ends a grace
    a delete             -> said at once, in a grace or not

A listing that lacks a key proves little after a lost connection: a store that came back without
its data lacks them all, and their owners, who are alive, put them again within a lease's time. A
delete that was seen as it happened is another matter.
"""

from collections.abc import Iterable, Mapping

from dynemo.planes.discovery.base import Change


class View:
    """One watcher's. Times are seconds of any one clock that only goes forward."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._known: dict[str, bytes] = {}
        self._missing: dict[str, float] = {}  # when it is to be called gone

    def refresh(self, listing: Mapping[str, bytes], now: float) -> list[Change]:
        absent = [key for key in self._known if key not in listing]
        self._missing = dict.fromkeys(absent, now + self._grace)
        return self.apply(Change(key, value) for key, value in listing.items())

    def apply(self, changes: Iterable[Change]) -> list[Change]:
        """The changes that differ from what is known, which is then known."""
        said = []
        for change in changes:
            self._missing.pop(change.key, None)
            if change.value == self._known.get(change.key):
                continue
            if change.value is None:
                del self._known[change.key]
            else:
                self._known[change.key] = change.value
            said.append(change)
        return said

    def due(self, now: float) -> list[Change]:
        """What has been missing for the whole grace, as gone."""
        over = [key for key, at in self._missing.items() if at <= now]
        return self.apply([Change(key, None) for key in over])

    def wait(self, now: float) -> float | None:
        """Seconds until `due` has something to say; None: nothing is missing."""
        return max(0.0, min(self._missing.values()) - now) if self._missing else None
