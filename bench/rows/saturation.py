"""One ingress and one echo worker that computes nothing: tokens/s, and the cost of a token.

Everything runs on the same cores: client, ingress, worker, engine host and NATS. The peer is the
same without the network: `in=http out=echo`, one process and its engine host.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from bench.client import Client, Task, client
from bench.plan import Plan, chat
from bench.pool import ingress, planes, worker
from bench.processes import cpu_seconds
from bench.servers import ours
from bench.table import Row

_TOKENS = 128
_WARM_STREAMS = 32
_DELAY = "DYNEMO_TOKEN_ECHO_DELAY_MS"
_BODY = chat("word " * 130, max_tokens=_TOKENS)  # each word is a token, and echo repeats them
_CLIENT = "the client"


@dataclass(frozen=True)
class _Side:
    port: int
    pids: Mapping[str, int]  #: the first one serves HTTP


@dataclass(frozen=True)
class _Run:
    rate: float  #: tokens/s
    cost: Mapping[str, float]  #: microseconds of CPU time per token, by process


def saturation_rows(plan: Plan) -> list[Row]:
    return [*_flat_out(plan), *_paced(plan)]


def _flat_out(plan: Plan) -> list[Row]:
    """Alternates rounds of both sides, which run all the time."""
    streams = plan.connections
    with _dyn("0") as one, _local("0") as other, client() as load:
        runs = [
            (
                _measure(load, one, plan.saturation_requests, streams),
                _measure(load, other, plan.saturation_requests, streams),
            )
            for _ in range(plan.saturations)
        ]
    one_runs, other_runs = zip(*runs, strict=True)
    how = f"{streams} connections, echo flat out"
    one_rate, other_rate = (median(run.rate for run in side) for side in (one_runs, other_runs))
    what = f"tokens/s, {how}, dyn:// (peer: local)"
    return [
        Row(what, one_rate, "tok/s", other_rate, goal=200_000, is_floor=True, rounds=len(runs)),
        *_costs(one_runs, other_runs, how, goal=10),
    ]


def _paced(plan: Plan) -> list[Row]:
    """Each token is a separate event: the cost of a stream at reading speed."""
    streams, delay = plan.connections, 50
    with _dyn(str(delay)) as one, client() as load:
        run = _measure(load, one, streams, streams)
    return _costs([run], [], f"{streams} streams at {1000 // delay} tok/s each")


def _costs(
    runs: Sequence[_Run], peers: Sequence[_Run], how: str, goal: float | None = None
) -> list[Row]:
    """Returns the median CPU time per token of each process.

    The HTTP process is shown beside the peer's.
    """
    of = {name: median(run.cost[name] for run in runs) for name in runs[0].cost}
    peer = median(next(iter(run.cost.values())) for run in peers) if peers else None
    (first, cost), *others = of.items()
    return [
        Row(f"{first}'s CPU per token, {how}", cost, "us", peer, goal=goal, rounds=len(runs)),
        *[Row(f"  beside it {name}", other, "us") for name, other in others],
        Row("  all of them together", sum(of.values()), "us"),
    ]


def _measure(load: Client, side: _Side, requests: int, streams: int) -> _Run:
    load.run(Task(side.port, {**_BODY, "max_tokens": 8}, _WARM_STREAMS, _WARM_STREAMS))
    before = {name: cpu_seconds(pid) for name, pid in side.pids.items()}
    outcome = load.run(Task(side.port, _BODY, streams, requests, keep=True))
    used = {name: cpu_seconds(pid) - before[name] for name, pid in side.pids.items()}
    used[_CLIENT] = outcome.cpu_seconds
    if outcome.tokens != requests * _TOKENS:
        raise RuntimeError(f"{outcome.tokens} tokens from {requests} requests")
    cost = {name: seconds / outcome.tokens * 1e6 for name, seconds in used.items()}
    return _Run(outcome.rate, cost)


@contextmanager
def _dyn(delay: str) -> Iterator[_Side]:
    with (
        planes() as servers,
        worker(servers, None, "out=echo", environment={_DELAY: delay}) as answering,
        ingress(servers) as asking,
    ):
        pids = {
            "ingress": asking.pid,
            "the worker": answering.pid,
            "the worker's engine host (echo)": answering.host_pid,
            "nats-server": servers.nats_pid,
        }
        yield _Side(asking.port, pids)


@contextmanager
def _local(delay: str) -> Iterator[_Side]:
    with ours(None, "out=echo", **{_DELAY: delay}) as served:
        yield _Side(served.port, {"runner": served.pid, "its engine host": served.host_pid})
