"""`python -m bench` measures and prints the table. A missed goal is not a failure.

A family of rows takes a few minutes, or a quarter of an hour if its engine loads slowly.
"""

import argparse
import json
import os
import platform
import signal
import sys
from dataclasses import replace
from pathlib import Path

from bench.plan import Plan
from bench.random_model import TINY
from bench.rows import FAMILIES
from bench.table import Row, as_json, render
from dynemo.errors import DynemoError

_QUICK = Plan(
    rounds=2,
    tokens=16,
    firsts=4,
    starts=2,
    open_streams=100,
    cpu_requests=64,
    connections=64,
    saturations=1,
    saturation_requests=128,
    neighbour_tokens=200,
    overload_seconds=6,
    instances=100,
    readies=1,
    choices=3,
    conversations=8,
    prefixes=1,
    random_sizes=TINY,
)
_LEGEND = """\
ours: dynemo-run in=http. peer: named in the row, otherwise the same xllamacpp server with the same
parameters and without dynemo-run, with the same client and requests; for the start, a plain script
on the same library. Ours and peer alternate in one run. Numbers are medians, with the quartiles of
the rounds' ratios or differences in brackets. Random weights: a Llama of 103 M parameters (a tiny
one with --quick) in Q8_0, as a checkout in bfloat16. CPU and memory: the runner, without its
engine. dyn://: etcd, NATS and TCP on loopback, all on this machine."""


def main() -> None:
    given = _arguments()
    # SIGTERM ends the servers that this process started, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    plan = replace(_QUICK if given.quick else Plan(), threads=given.threads)
    rows: list[Row] = []
    print(_machine(given.quick), flush=True)
    for name in given.only or FAMILIES:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        try:
            rows += FAMILIES[name](plan)
        except (RuntimeError, OSError, DynemoError) as error:
            print(f"{name}: not measured: {error}", file=sys.stderr)
    print(f"\n{render(rows)}\n\n{_LEGEND}")
    print(f"load average at the end: {os.getloadavg()[0]:.1f}")
    if given.json is not None:
        given.json.write_text(json.dumps({"quick": given.quick, "rows": as_json(rows)}, indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--only",
        action="append",
        choices=list(FAMILIES),
        help="measure only this family; may be repeated",
    )
    parser.add_argument("--quick", action="store_true", help="few rounds, and a tiny random model")
    parser.add_argument("--threads", type=int, help="threads of llama.cpp, for ours and the peer")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the rows to FILE as JSON"
    )
    return parser.parse_args()


def _machine(is_quick: bool) -> str:
    kind = "a quick look, not a measurement; " if is_quick else ""
    return (
        f"{kind}{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, "
        f"Python {platform.python_version()}, load average {os.getloadavg()[0]:.1f} before"
    )


if __name__ == "__main__":
    main()
