"""Time to the first token (TTFT): of a request to a warm server, and from the shell."""

import compileall
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import dynemo
from bench.plan import QUESTION, Plan, Subject, chat
from bench.rows.turns import Pair, in_turns
from bench.servers import Served, command, engine_environment, spec_of
from bench.table import Row, difference

_SCRIPT = Path(__file__).parent.parent / "bare_script.py"


def ttft_row(
    plan: Plan, both: Pair, subject: Subject, *, goal: float, how: str = "", answers: int = 1
) -> Row:
    """Both sides have the short prompt in their caches, so that the rest is our overhead.

    Each value is the median of `answers` consecutive answers.
    """
    body = chat(QUESTION, max_tokens=2, ignore_eos=True)

    def measure(server: Served) -> float:
        seconds: list[float] = []
        for _ in range(answers):
            time.sleep(0.01)
            seconds += both.ask(server, body).first
        return median(seconds) * 1000

    one, other = in_turns(max(1, plan.firsts // answers), both, measure)
    return difference(f"TTFT, warm, {subject.name}{how}", "ms", one, other, goal=goal)


def start_rows(plan: Plan) -> list[Row]:
    """Measures `echo ... | dynemo-run in=stdin`, from the start of the shell to the first byte."""
    from dynemo.engines.llama_cpp.params import common_params

    # As an installation does. Otherwise a checkout with changed files would be compiled at each
    # start.
    compileall.compile_dir(Path(dynemo.__file__).parent, quiet=2)
    spec = spec_of(None, None)
    params = common_params(spec, "")
    context = params.n_ctx // params.n_parallel
    runner = " ".join([*command(), "in=stdin"])
    threads = params.cpuparams.n_threads
    script = f"{sys.executable} {_SCRIPT} {spec.model} {context} {params.n_parallel} {threads}"
    for line in (runner, script):
        _first_byte(line)
    one: list[float] = []
    other: list[float] = []
    for turn in range(plan.starts):
        for is_ours in (True, False) if turn % 2 else (False, True):
            (one if is_ours else other).append(_first_byte(runner if is_ours else script))
    return [difference("shell to first token, demo model", "s", one, other, goal=0.25)]


def _first_byte(command: str) -> float:
    """Returns the seconds to the first byte on standard output.

    Then waits for the end, not counted.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        ["sh", "-c", f"echo {QUESTION!r} | {command}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=engine_environment(),
    )
    assert process.stdout is not None
    first = os.read(process.stdout.fileno(), 1)
    seconds = time.perf_counter() - began
    with process:
        process.stdout.read()
    if not first:
        raise RuntimeError(f"no token from: {command}")
    return seconds
