"""The network between a worker and its ingress fails silently."""

import pytest

from support.dyn_fleet import fleet, present
from support.dyn_network import network
from support.dyn_streams import SOME, check, streams
from support.waiting import wait_until


@pytest.mark.timeout(90)
def test_a_worker_is_lost_without_a_word() -> None:
    with network() as net, fleet(net.flags) as pool:
        hosts = [net.host() for _ in range(3)]
        lost, *_ = workers = [pool.start(delay_ms=40, inside=host.inside) for host in hosts]
        for worker in workers:
            wait_until(lambda worker=worker: worker.is_ready, 30)
        ingress = pool.ingress(workers=3)
        got = streams([ingress], SOME, (1.5, hosts[0].cut))
        check(got)
        assert max(answer.longest_gap for answer in got) < 10
        assert any("silent for" in line for line in ingress.lines), ingress.lines
        assert sum(" moves to another instance after" in line for line in ingress.lines) >= SOME / 6
        wait_until(lambda: present(ingress) == 2)
        assert lost.process.poll() is None
        hosts[0].heal()
        wait_until(lambda: present(ingress) == 3, 30)
        check(streams([ingress], SOME))
