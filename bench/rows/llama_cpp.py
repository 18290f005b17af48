"""`in=http out=llama_cpp` against the same xllamacpp server with the same parameters."""

from functools import partial

from bench.plan import CONTEXT, Plan
from bench.rows.own_servers import engine_rows
from bench.rows.turns import Pair, subjects
from bench.servers import bare, ours
from bench.table import Row


def llama_cpp_rows(plan: Plan) -> list[Row]:
    rows = []
    for subject in subjects(plan):
        arguments = ("out=llama_cpp", "--context-length", str(CONTEXT))
        one = partial(ours, subject.path, *arguments, options=plan.engine_options)
        other = partial(bare, subject.path, CONTEXT, plan.engine_options)
        rows += engine_rows(plan, subject, one, other, Pair, ttft_goal=2.0)
    return rows
