"""The rules of a chaos run: which answers are right, and which errors have an excuse."""

from collections.abc import Sequence
from dataclasses import dataclass

from stress.plan import WORKERS, Fault
from support.dyn_streams import Answer

#: Seconds that a request may wait for an instance or for the request plane.
WAIT = 10.0
#: Seconds after a fault in which its effects still show.
_AFTER = 6.0


@dataclass(frozen=True)
class Span:
    """A fault as it happened, in seconds of the run."""

    fault: Fault
    begin: float
    end: float


@dataclass(frozen=True)
class Outcome:
    """One stream: the answer, the expected answer, and the times."""

    answer: Answer
    expected: Answer
    ingress: int
    begin: float
    end: float

    @property
    def is_exact(self) -> bool:
        return self.answer.whole == self.expected.whole


def excuse(outcome: Outcome, spans: Sequence[Span]) -> str:
    """Returns the cause that excuses an answer that is not exact, or "" if nothing does.

    A wrong or an incomplete text without an error has no excuse.
    """
    answer = outcome.answer
    if not answer.error or not outcome.expected.text.startswith(answer.text):
        return ""
    if _at_killed_ingress(outcome, spans):
        return "its ingress was killed"
    if answer.code == "request_crashed_engine" and _deaths(outcome, spans) >= 2:
        return "two engines died under it"
    if answer.code in ("request_plane_away", "unavailable", "instance_gone", "instance_silent"):
        if _longest(outcome, spans, "nats") > WAIT:
            return "the request plane was away beyond its deadline"
        if _is_without_workers(outcome, spans):
            return "no healthy worker was left"
    return ""


def _during(outcome: Outcome, span: Span) -> bool:
    return span.begin <= outcome.end and span.end + _AFTER >= outcome.begin


def _at_killed_ingress(outcome: Outcome, spans: Sequence[Span]) -> bool:
    return not outcome.answer.code and any(
        span.fault.kind == "kill ingress"
        and span.fault.target == outcome.ingress
        and outcome.begin - 1 <= span.begin <= outcome.end + 1
        for span in spans
    )


def _deaths(outcome: Outcome, spans: Sequence[Span]) -> int:
    """How many engines died. A lost worker does not count against a request."""
    return sum(span.fault.part == "host" and _during(outcome, span) for span in spans)


def is_without_plane(outcome: Outcome, spans: Sequence[Span]) -> bool:
    """Whether the request plane was away in its longest gap, so that it could not move at once."""
    end = outcome.begin + outcome.answer.gap_end
    begin = end - outcome.answer.longest_gap
    return any(
        span.fault.part == "nats" and span.begin <= end and span.end >= begin for span in spans
    )


def _longest(outcome: Outcome, spans: Sequence[Span], part: str) -> float:
    found = (s.end - s.begin for s in spans if s.fault.part == part and _during(outcome, s))
    return max(found, default=0.0)


def _is_without_workers(outcome: Outcome, spans: Sequence[Span]) -> bool:
    """Whether every worker was disturbed when the error came."""
    disturbed = {
        span.fault.target
        for span in spans
        if span.fault.part in ("worker", "host") and span.begin <= outcome.end <= span.end + _AFTER
    }
    return len(disturbed) == WORKERS
