"""The runner's memory: at rest, and per open stream."""

import time

from bench.client import Task, client
from bench.plan import QUESTION, Plan, chat
from bench.processes import proportional_bytes, resident_bytes
from bench.servers import ours
from bench.table import Row

_MB, _KB = 1e6, 1e3
#: Echo starts with the prompt's control tokens, which have no text. So the first text takes a few
#: seconds, and then all streams stay open for longer than the measurement.
_DELAY_MS = "1500"


def memory_rows(plan: Plan) -> list[Row]:
    return [*_rest(), _stream(plan)]


def _rest() -> list[Row]:
    """After one request to the demo model. The engine is another process."""
    with ours(None, "out=llama_cpp") as served, client() as load:
        load.run(Task(served.port, chat(QUESTION, max_tokens=16)))
        time.sleep(0.5)
        rss, pss = resident_bytes(served.pid), proportional_bytes(served.pid)
        rows = [Row("runner's memory at rest (RSS)", rss / _MB, "MB", goal=90)]
        if pss is not None:
            rows.append(Row("  of it its own (PSS)", pss / _MB, "MB"))
        host = resident_bytes(served.host_pid)
        rows.append(Row("  beside it the engine host (RSS)", host / _MB, "MB"))
    return rows


def _stream(plan: Plan) -> Row:
    body = chat("word " * 60)
    environment = {"DYNEMO_TOKEN_ECHO_DELAY_MS": _DELAY_MS}
    with ours(None, "out=echo", **environment) as served, client() as load:
        load.run(Task(served.port, body, 8, hold=True))
        load.run(Task(served.port, body, requests=0))  # closes them
        time.sleep(0.3)
        before = resident_bytes(served.pid)
        load.run(Task(served.port, body, plan.open_streams, hold=True))
        time.sleep(0.3)
        grown = resident_bytes(served.pid) - before
    what = f"runner's memory per open stream (RSS, {plan.open_streams} open)"
    return Row(what, grown / plan.open_streams / _KB, "kB", goal=20)
