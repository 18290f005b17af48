"""`dynemo-run drain` with real workers."""

from collections.abc import Iterator

import pytest

from dynemo.commands.drain import select
from dynemo.errors import UsageError
from support.command import run
from support.dyn_fleet import Fleet, fleet, present
from support.dyn_servers import Servers
from support.dyn_streams import check, streams
from support.records import make_instance, make_record
from support.waiting import wait_until


@pytest.fixture(params=["nats", "tcp"])
def pool(servers: Servers, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    with fleet([*servers.flags_of(request.param), "--request-plane", request.param]) as started:
        yield started


def ids(servers: Servers) -> list[str]:
    done = run("ps", "--etcd", servers.etcd.address, "--nats", servers.nats.url)
    return [line.split()[2] for line in done.stdout.splitlines()[1:]]


@pytest.mark.timeout(90)
def test_workers_drain_without_a_lost_stream(servers: Servers, pool: Fleet) -> None:
    where = ("--etcd", servers.etcd.address, "--nats", servers.nats.url)
    workers = pool.workers(3, "--grace", "0.5")
    ingress = pool.ingress(workers=3)
    name = ids(servers)[0]

    def drain() -> None:
        done = run("drain", name, *where)
        assert done.returncode == 0, done.stderr
        assert f"Instance {name} of " in done.stdout

    check(streams([ingress], 30, (0.5, drain)))
    wait_until(lambda: present(ingress) == 2)
    wait_until(lambda: [worker.process.poll() for worker in workers].count(0) == 1)
    done = run("drain", "--host", "localhost", *where)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 2
    wait_until(lambda: present(ingress) == 0)
    done = run("drain", name, *where)
    assert (done.returncode, "`dynemo-run ps` lists them" in done.stderr) == (2, True)


def test_what_is_selected() -> None:
    records = [
        make_record(make_instance(name), host=host, hostname=f"node-{host}")
        for name, host in (("ab1", "h1"), ("ab2", "h1"), ("cd3", "h2"))
    ]
    assert select(records, "cd", "") == [records[2]]
    assert select(records, "", "h1") == select(records, "", "node-h1") == records[:2]
    for wrong, says in (
        (("ab", ""), "The ids of 2 instances"),
        (("x", ""), "No registered instance"),
        (("", "h3"), "choose one of node-h1, node-h2"),
    ):
        with pytest.raises(UsageError, match=says):
            select(records, *wrong)


@pytest.mark.parametrize("words", [[], ["ab", "--host", "h"]])
def test_one_of_both_is_needed(words: list[str]) -> None:
    done = run("drain", *words)
    assert (done.returncode, "needs an INSTANCE" in done.stderr) == (2, True)
