import random

import pytest

from dynemo.messages.answer import Finish, TextPiece
from dynemo.terminal.reply import Reply
from dynemo.terminal.summary import BatchCounts, Durations, status, summary
from support.pieces import ended


def test_percentiles_are_exact_to_a_thousandth() -> None:
    values = [random.Random(1).lognormvariate(-2, 1.5) for _ in range(10_000)]
    durations = Durations()
    for value in values:
        durations.add(value)
    values.sort()
    for share in (0.5, 0.9, 0.99):
        exact = values[int(share * len(values)) - 1]
        assert durations.percentile(share) == pytest.approx(exact, rel=0.001)


def test_percentiles_of_few_and_of_none() -> None:
    durations = Durations()
    assert durations.percentile(0.5) is None
    durations.add(0.0)
    durations.add(2.0)
    assert durations.percentile(0.5) == pytest.approx(1e-6, rel=0.001)
    assert durations.percentile(0.99) == pytest.approx(2.0, rel=0.001)


def test_a_reply_counts_tokens_as_the_engine_does() -> None:
    reply = Reply(started=0.0)
    assert reply.take([TextPiece(0, "a b", 2)]) == 2
    assert reply.take(ended(0, "", 1, Finish("stop", 5, 4))) == 2
    assert (reply.text, reply.tokens, reply.first_tokens) == ("a b", 4, 2)


def test_rates() -> None:
    assert Reply(started=0, first=1, last=3, first_tokens=1, tokens=5).rate == 2
    assert Reply(started=0, first=2, last=2, first_tokens=4, tokens=4).rate == 2
    assert Reply(started=0).rate is None


def test_summary_tells_of_this_run_and_the_earlier_one() -> None:
    tally = BatchCounts(total=5, blank=1, ok_before=2, failed_before=1, failed=1)
    reply = Reply(started=0, first=0.5, last=2, first_tokens=1, tokens=10)
    tally.tokens_out += 10
    tally.add(reply, 7)
    lines = summary(tally)
    assert lines[0] == (
        "5 of 5 lines done: 3 ok, 2 failed (3 of them by an earlier run); 1 blank line skipped"
    )
    assert "7 in, 10 out" in lines[1]
    assert lines[2:] == [
        "TTFT     p50 500 ms, p90 500 ms, p99 500 ms",
        "latency  p50 2.00 s, p90 2.00 s, p99 2.00 s",
    ]


def test_status_estimates_the_time_that_is_left() -> None:
    tally = BatchCounts(total=1000, ok_before=400, ok=300, failed=1)
    tally.started -= 60
    assert status(tally) == "701 of 1,000 lines, 1 failed, 0.0 tokens/s, 1 min 0 s left"
