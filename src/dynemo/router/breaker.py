"""Circuit breakers: instances that fail get no requests but a probe now and then. Pure.

    event                                         the breaker of the instance
    a request was answered                        closes; the count of failures starts again
    a failure of the instance, `FAILURES` times
      without an answer in between                opens
    a failure that may be the request's own       counts as `DOUBTFUL` of one, unless the instance
                                                  has failed before, or has never answered
    nobody answers there                          opens at once

When the backoff of an open breaker is over, a probe is due. If the engine fails, that is the next
request. If nobody answers, it is a message without a request. The probe closes the breaker, or
doubles the backoff.
"""

from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Literal

#: Failures of one instance without an answer in between that open its breaker.
FAILURES = 3.0
#: The count of a failure for which the request may be to blame.
DOUBTFUL = 0.25
#: Seconds until the first probe, and the most between two.
FIRST_BACKOFF = 1.0
LAST_BACKOFF = 15.0

Cause = Literal["failing", "unreachable"]


@dataclass
class Breaker:
    """The record of one instance."""

    has_answered: bool = False
    failures: float = 0.0  #: since the last answer
    backoff: float = 0.0  #: seconds; 0 while it is closed
    probe_at: float = 0.0  #: the time of the next probe
    is_probed: bool = False  #: a probe has started since the last failure
    cause: Cause = "failing"
    reason: str = ""  #: the last error, in sentences


class Breakers:
    """The breakers of the instances of one model, by instance id. `now` gives the time."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._all: dict[str, Breaker] = {}
        self._open: dict[str, Breaker] = {}
        self._probe_at = 0.0  # no probe is due before this

    @property
    def open(self) -> Set[str]:
        """The instances whose breakers are open."""
        return self._open.keys()

    def of(self, instance_id: str) -> Breaker | None:
        """The open breaker of an instance, or None."""
        return self._open.get(instance_id)

    def is_due(self, instance_id: str) -> bool:
        """Whether the probe of an instance is due. Its breaker must be open."""
        return self._open[instance_id].probe_at <= self._now()

    def due(self, cause: Cause) -> list[str]:
        """The instances whose probe is due, the longest wait first."""
        if not self._open or self._now() < self._probe_at:
            return []
        self._probe_at = min(breaker.probe_at for breaker in self._open.values())
        due = [name for name, it in self._open.items() if it.cause == cause and self.is_due(name)]
        return sorted(due, key=lambda name: self._open[name].probe_at)

    def probing(self, instance_id: str) -> None:
        """A probe starts. The next one starts at least one backoff later."""
        breaker = self._open[instance_id]
        breaker.probe_at = self._now() + breaker.backoff
        breaker.is_probed = True

    def answered(self, instance_id: str) -> bool:
        """Records an answer. Returns whether it closes the breaker."""
        breaker = self._all.setdefault(instance_id, Breaker())
        breaker.has_answered, breaker.failures, breaker.backoff = True, 0.0, 0.0
        return self._open.pop(instance_id, None) is not None

    def reached(self, instance_id: str) -> bool:
        """Records that the instance takes requests. Returns whether this closes its breaker."""
        breaker = self._open.get(instance_id)
        if breaker is None or breaker.cause != "unreachable":
            return False
        breaker.backoff = 0.0
        del self._open[instance_id]
        return True

    def failed(self, instance_id: str, reason: str, *, is_certain: bool) -> bool:
        """Records an error of the engine before the first token. Returns whether it opens.

        `is_certain`: another instance answers the same request.
        """
        breaker = self._all.setdefault(instance_id, Breaker())
        is_proven = breaker.has_answered and breaker.failures < 1
        breaker.failures += DOUBTFUL if is_proven and not is_certain else 1.0
        if breaker.failures < FAILURES:
            return False
        return self._trip(instance_id, breaker, "failing", reason)

    def unreachable(self, instance_id: str, reason: str) -> bool:
        """Records that nobody answers there. Returns whether it opens."""
        breaker = self._all.setdefault(instance_id, Breaker())
        return self._trip(instance_id, breaker, "unreachable", reason)

    def forget(self, instance_id: str) -> None:
        """The instance is gone. If it returns, its engine has restarted."""
        self._all.pop(instance_id, None)
        self._open.pop(instance_id, None)

    def _trip(self, instance_id: str, breaker: Breaker, cause: Cause, reason: str) -> bool:
        """Only the failure of a probe changes the backoff, and not that of another request."""
        is_new = instance_id not in self._open
        breaker.cause, breaker.reason = cause, reason
        if is_new or breaker.is_probed:
            breaker.backoff = min(max(2 * breaker.backoff, FIRST_BACKOFF), LAST_BACKOFF)
            breaker.probe_at = self._now() + breaker.backoff
            breaker.is_probed = False
        self._open[instance_id] = breaker
        self._probe_at = min(self._probe_at, breaker.probe_at)
        return is_new
