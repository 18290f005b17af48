"""A second signal ends the grace period at once, and no stream is lost."""

import signal
import time

import pytest

from support.dyn_fleet import Fleet
from support.dyn_streams import check, streams
from support.waiting import wait_until

MANY = 24
GRACE = ["--grace", "60"]


@pytest.mark.timeout(60)
def test_a_worker_hands_its_streams_over_at_the_second_signal(pool: Fleet) -> None:
    first, _ = pool.workers(2, *GRACE, delay_ms=40)
    ingress = pool.ingress(workers=2)

    def stop() -> None:
        first.send(signal.SIGTERM)
        time.sleep(0.5)
        assert first.process.poll() is None
        first.send(signal.SIGTERM)
        assert first.process.wait(15) == 128 + signal.SIGTERM

    check(streams([ingress], MANY, (1.0, stop)))
    assert sum(" moves to another instance after" in line for line in ingress.lines) >= MANY / 6
    assert not any("Traceback" in line for line in first.lines), first.lines


@pytest.mark.timeout(60)
def test_an_ingress_tells_its_clients_at_the_second_signal(pool: Fleet) -> None:
    pool.workers(1, delay_ms=200)
    ingress = pool.ingress(*GRACE, workers=1)

    def stop() -> None:
        ingress.process.send_signal(signal.SIGINT)
        wait_until(lambda: any("press Ctrl-C to stop now" in line for line in ingress.lines))
        assert ingress.process.poll() is None
        assert ingress.end(signal.SIGINT, 15) == 128 + signal.SIGINT

    got = streams([ingress], MANY, (1.0, stop))
    assert {answer.error for answer in got} == {"The server is shutting down."}
    assert all(answer.text for answer in got)
    assert not any("Traceback" in line for line in ingress.lines), ingress.lines


@pytest.mark.timeout(90)
def test_workers_are_restarted_one_after_another(pool: Fleet) -> None:
    """With no moves at all, so a planned stop must cost none."""
    words = ("--grace", "0.3")
    workers = pool.workers(3, *words, delay_ms=150)
    ingress = pool.ingress("--migration-limit", "0", workers=3)

    def restart() -> None:
        for worker in workers:
            worker.send(signal.SIGTERM)
            assert worker.process.wait(15) == 0
            pool.workers(1, *words, delay_ms=150)

    check(streams([ingress], MANY, (1.0, restart)))
    moves = sum(" moves to another instance after" in line for line in ingress.lines)
    assert moves > MANY  # some moved more than once
