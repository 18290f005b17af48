"""Limits the use of one key: requests and tokens a minute, and requests at once.

A rate is a bucket that holds one minute's worth and fills all the time. A request needs one request
and one token in its buckets. How many tokens it takes is known only later, so the bucket of tokens
may go below zero; the key then waits until it is full enough again. So a prompt that is longer than
the rate is answered, too, and paid for afterwards.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from time import monotonic

from dynemo.errors import Overloaded

Clock = Callable[[], float]  #: seconds


@dataclass(frozen=True, slots=True)
class KeyRules:
    """The limits of a key. None: no limit."""

    name: str
    models: frozenset[str] | None = None
    requests: int | None = None  #: a minute
    tokens: int | None = None  #: a minute, of prompts and answers
    concurrency: int | None = None


class Share:
    """The use of one key, or of several with one name. All calls come from one thread."""

    __slots__ = ("_requests", "_running", "_tokens", "rules")

    def __init__(self, rules: KeyRules, clock: Clock = monotonic) -> None:
        self.rules = rules
        self._requests = None if rules.requests is None else _Bucket(rules.requests, clock)
        self._tokens = None if rules.tokens is None else _Bucket(rules.tokens, clock)
        self._running = 0

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Counts one request while it runs. Raises Overloaded."""
        self._check()
        if self._requests is not None:
            self._requests.take(1)
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    def spend(self, tokens: int) -> None:
        if self._tokens is not None:
            self._tokens.take(tokens)

    def _check(self) -> None:
        rules = self.rules
        if rules.concurrency is not None and self._running >= rules.concurrency:
            raise Overloaded(f"This key may have {rules.concurrency} requests running at once.")
        for bucket, what in ((self._requests, "requests"), (self._tokens, "tokens")):
            if bucket is not None and (seconds := bucket.seconds_to_one()) > 0:
                raise Overloaded(
                    f"This key may use {bucket.rate} {what} a minute; "
                    f"try again in {ceil(seconds)} s.",
                    retry_after=ceil(seconds),
                )


class _Bucket:
    __slots__ = ("_at", "_clock", "_level", "rate")

    def __init__(self, rate: int, clock: Clock) -> None:
        self.rate = rate  #: a minute
        self._clock = clock
        self._level, self._at = float(rate), clock()

    def take(self, amount: int) -> None:
        self._fill()
        self._level -= amount

    def seconds_to_one(self) -> float:
        """The time until it holds 1; at most 0 if it does."""
        self._fill()
        return (1 - self._level) * 60 / self.rate

    def _fill(self) -> None:
        now = self._clock()
        self._level = min(self.rate, self._level + (now - self._at) * self.rate / 60)
        self._at = now
