"""CPU time per token of the runner and of the engine host, with an engine that computes nothing."""

from bench.client import Task, client
from bench.plan import Plan, chat
from bench.processes import cpu_seconds
from bench.servers import ours
from bench.table import Row

_TOKENS = 128
_STREAMS = 64
_BODY = chat("word " * 200, max_tokens=_TOKENS)


def cpu_rows(plan: Plan) -> list[Row]:
    """Paced, each token is a separate event.

    Flat out, tokens that arrive together share one event.
    """
    return [
        *_cost(plan, f"{_STREAMS} streams at 50 tok/s each", "20"),
        *_cost(plan, f"{_STREAMS} streams flat out", "0"),
    ]


def _cost(plan: Plan, how: str, delay: str) -> list[Row]:
    environment = {"DYNEMO_TOKEN_ECHO_DELAY_MS": delay}
    with ours(None, "out=echo", **environment) as served, client() as load:
        load.run(Task(served.port, _BODY, _STREAMS, _STREAMS))
        pids = (served.pid, served.host_pid)
        before = [cpu_seconds(pid) for pid in pids]
        outcome = load.run(Task(served.port, _BODY, _STREAMS, plan.cpu_requests))
        used = [cpu_seconds(pid) - start for pid, start in zip(pids, before, strict=True)]
    if outcome.tokens != plan.cpu_requests * _TOKENS:
        raise RuntimeError(f"{outcome.tokens} tokens from {plan.cpu_requests} requests")
    runner, host = (seconds / outcome.tokens * 1e6 for seconds in used)
    return [
        Row(f"runner's CPU per token, echo, {how}", runner, "us"),
        Row("  beside it the engine host (echo)", host, "us"),
        Row("  tokens/s meanwhile", outcome.rate, "tok/s"),
    ]
