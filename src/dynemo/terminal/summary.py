"""The counts and percentiles of a batch. Their memory does not grow with the batch."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic

from dynemo.terminal.reply import Reply
from dynemo.terminal.screen import count, duration

#: Each bucket is 0.1 % wider than the previous one, so a percentile is off by at most half of that.
#: About 20,000 buckets cover microseconds to minutes.
_STEP = math.log(1.001)
_LEAST = 1e-6  # seconds; shorter durations count as this


class Durations:
    """The distribution of durations."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        self._buckets[round(math.log(max(seconds, _LEAST)) / _STEP)] += 1

    def percentile(self, share: float) -> float | None:
        """Returns the least duration in seconds that `share` of all do not exceed, or None."""
        wanted = math.ceil(share * self._buckets.total())
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                return math.exp(bucket * _STEP)
        return None


@dataclass
class BatchCounts:
    """The counts of one run. `before` counts the lines of earlier runs."""

    total: int = 0  #: lines of the input
    blank: int = 0
    ok: int = 0
    failed: int = 0
    ok_before: int = 0
    failed_before: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    ttft: Durations = field(default_factory=Durations)
    latency: Durations = field(default_factory=Durations)
    started: float = field(default_factory=monotonic)

    @property
    def before(self) -> int:
        return self.ok_before + self.failed_before

    @property
    def done(self) -> int:
        return self.before + self.ok + self.failed

    @property
    def all_failed(self) -> int:
        return self.failed_before + self.failed

    def start(self) -> None:
        """Starts the clock. Call it when the model can answer."""
        self.started = monotonic()

    @property
    def elapsed(self) -> float:
        return monotonic() - self.started

    @property
    def rate(self) -> float:
        """Tokens generated per second in this run."""
        return self.tokens_out / self.elapsed if self.elapsed > 0 else 0.0

    def add(self, reply: Reply, prompt_tokens: int) -> None:
        """Counts an answered line. Its generated tokens were counted while they arrived."""
        self.ok += 1
        self.tokens_in += prompt_tokens
        self.latency.add(reply.elapsed)
        if reply.ttft is not None:
            self.ttft.add(reply.ttft)


def summary(tally: BatchCounts) -> list[str]:
    """Returns the lines to print at the end of a batch."""
    lines = [
        f"{tally.done:,} of {count(tally.total, 'line')} done: "
        f"{tally.ok_before + tally.ok:,} ok, {tally.all_failed:,} failed"
        + (f" ({tally.before:,} of them by an earlier run)" if tally.before else "")
        + (f"; {count(tally.blank, 'blank line')} skipped" if tally.blank else "")
    ]
    if tally.ok:
        lines += [
            f"tokens   {tally.tokens_in:,} in, {tally.tokens_out:,} out, "
            f"{tally.rate:,.1f} tokens/s over {duration(tally.elapsed)}",
            f"TTFT     {_percentiles(tally.ttft)}",
            f"latency  {_percentiles(tally.latency)}",
        ]
    return lines


def status(tally: BatchCounts) -> str:
    """Returns the progress of a batch: lines, failures, speed and the remaining time."""
    parts = [f"{tally.done:,} of {count(tally.total, 'line')}"]
    if tally.all_failed:
        parts.append(f"{tally.all_failed:,} failed")
    parts.append(f"{tally.rate:,.1f} tokens/s")
    here = tally.ok + tally.failed
    if here:
        left = tally.elapsed / here * (tally.total - tally.done)
        parts.append(f"{duration(max(1, round(left)))} left")
    return ", ".join(parts)


def _percentiles(durations: Durations, shares: Sequence[int] = (50, 90, 99)) -> str:
    values = [(share, durations.percentile(share / 100)) for share in shares]
    return ", ".join(f"p{share} {duration(value)}" for share, value in values if value is not None)
