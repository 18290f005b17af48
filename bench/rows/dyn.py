"""`out=dyn://` over etcd, NATS and TCP on loopback, against `out=llama_cpp` without them."""

from collections.abc import Iterator
from contextlib import contextmanager

from bench.client import client
from bench.plan import CONTEXT, Plan, Subject
from bench.pool import ingress, planes, worker
from bench.rows.first import ttft_row
from bench.rows.speed import speed_row
from bench.rows.turns import Pair, subjects
from bench.servers import ours
from bench.table import Row

_HOW = ", dyn:// (peer: the same, local)"


def dyn_rows(plan: Plan) -> list[Row]:
    rows = []
    for subject in subjects(plan):
        with _pair(plan, subject) as both:
            rows.append(speed_row(plan, both, subject, 8, _HOW))
            rows.append(ttft_row(plan, both, subject, goal=1.5, how=_HOW))
    return rows


@contextmanager
def _pair(plan: Plan, subject: Subject) -> Iterator[Pair]:
    """Each side has its own engine. Only one side gets requests at a time."""
    arguments = ["out=llama_cpp", "--context-length", str(CONTEXT)]
    options = plan.engine_options
    with (
        planes() as servers,
        worker(servers, subject.path, *arguments, options=options),
        ingress(servers) as one,
        ours(subject.path, *arguments, options=options) as other,
        client() as load,
    ):
        yield Pair(one, other, load)
