"""What a batch came to: counts and percentiles, in memory that does not grow with the batch."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic

from dynemo.terminal.reply import Reply
from dynemo.terminal.screen import count, duration

#: Buckets grow by a tenth of a percent: a percentile is off by half of that at most, and there are
#: some 20,000 buckets from a microsecond to minutes.
_STEP = math.log(1.001)
_LEAST = 1e-6  # seconds; what is shorter counts as this


class Spread:
    """Durations, by percentile."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        self._buckets[round(math.log(max(seconds, _LEAST)) / _STEP)] += 1

    def percentile(self, share: float) -> float | None:
        """The least duration, in seconds, that `share` of all do not exceed; None without any."""
        wanted = math.ceil(share * self._buckets.total())
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                return math.exp(bucket * _STEP)
        return None


@dataclass
class BatchCounts:
    """Counts of one run; `before` is what earlier runs had done."""

    total: int = 0  #: lines of the input
    blank: int = 0
    ok: int = 0
    failed: int = 0
    ok_before: int = 0
    failed_before: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    ttft: Spread = field(default_factory=Spread)
    latency: Spread = field(default_factory=Spread)
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
        """Begin to count time, once the model can answer."""
        self.started = monotonic()

    @property
    def elapsed(self) -> float:
        return monotonic() - self.started

    @property
    def rate(self) -> float:
        """Tokens generated per second of this run."""
        return self.tokens_out / self.elapsed if self.elapsed > 0 else 0.0

    def add(self, reply: Reply, prompt_tokens: int) -> None:
        """Count a line that was answered; its generated tokens were counted as they came."""
        self.ok += 1
        self.tokens_in += prompt_tokens
        self.latency.add(reply.elapsed)
        if reply.ttft is not None:
            self.ttft.add(reply.ttft)


def summary(tally: BatchCounts) -> list[str]:
    """The lines to show at the end of a batch."""
    lines = [
        f"{tally.done:,} of {count(tally.total, 'line')} done: "
        f"{tally.ok_before + tally.ok:,} ok, {tally.all_failed:,} failed"
        + (f" ({tally.before:,} of them by an earlier run)" if tally.before else "")
        + (f"; {count(tally.blank, 'line')} left out as blank" if tally.blank else "")
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
    """Where a batch is: lines, failures, speed and the time that is left."""
    words = [f"{tally.done:,} of {count(tally.total, 'line')}"]
    if tally.all_failed:
        words.append(f"{tally.all_failed:,} failed")
    words.append(f"{tally.rate:,.1f} tokens/s")
    here = tally.ok + tally.failed
    if here:
        left = tally.elapsed / here * (tally.total - tally.done)
        words.append(f"{duration(max(1, round(left)))} left")
    return ", ".join(words)


def _percentiles(spread: Spread, shares: Sequence[int] = (50, 90, 99)) -> str:
    values = [(share, spread.percentile(share / 100)) for share in shares]
    return ", ".join(f"p{share} {duration(value)}" for share, value in values if value is not None)
