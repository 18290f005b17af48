"""`python -m stress chaos`: processes are killed, frozen, cut off and restarted under streams.

Every stream must be complete and exact. An error needs one of the excuses of `verdict.py`. At the
end no process, key, folder or port may be left.
"""

import asyncio
import os
import re
import tempfile
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from stress import leftovers
from stress.plan import Fault, make_plan
from stress.traffic import Traffic
from stress.verdict import Outcome, Span, excuse, is_without_plane
from stress.world import MARK, World, can_cut, world
from support.command import serving

STREAMS = 80
_LONG_GAP = 4.0  #: seconds
_ROUTERS = ("random", "round-robin", "least-loaded", "prefix")


def run(seconds: float, seed: int, keep: Path | None) -> int:
    """Returns the exit code. The logs of all processes go to `keep`, if it is given."""
    is_cuttable = can_cut()
    plan = make_plan(seed, seconds, can_cut=is_cuttable)
    router = _ROUTERS[seed % len(_ROUTERS)]
    print(f"chaos: seed {seed}, {seconds:g} s, {len(plan)} faults, router {router}", flush=True)
    if not is_cuttable:
        print("Network namespaces cannot be made here, so no worker is cut off.", flush=True)
    run_id = os.environ[MARK] = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="dx-", dir="/tmp") as folder:
        temporary, logs = Path(folder) / "t", keep or Path(folder) / "logs"
        temporary.mkdir()
        logs.mkdir(exist_ok=True, parents=True)
        os.environ["TMPDIR"] = str(temporary)
        with world(is_cuttable=is_cuttable) as it:
            it.start(logs, router)
            traffic, spans = asyncio.run(_run(it, plan, seed, seconds))
            it.stop()
            left = asyncio.run(leftovers.keys(it.etcd_address))
        left += leftovers.marked(MARK, run_id) + leftovers.files([temporary])
        if keep is not None:
            _write(logs / "streams.txt", traffic.outcomes, spans)
    for at, seconds in traffic.stalls:
        print(f"This program itself got no CPU for {seconds:.1f} s at {at:.1f} s.")
    return _report(traffic.outcomes, spans, left)


async def _run(
    it: World, plan: Sequence[Fault], seed: int, seconds: float
) -> tuple[Traffic, list[Span]]:
    with serving("out=echo", DYNEMO_TOKEN_ECHO_DELAY_MS="0") as reference:
        traffic = Traffic(it.urls, reference, seed)
        await traffic.learn()
    spans: list[Span] = []
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(traffic.run(STREAMS, seconds))
        for fault in plan:
            tasks.create_task(_suffer(it, fault, traffic, spans))
    return traffic, spans


async def _suffer(it: World, fault: Fault, traffic: Traffic, spans: list[Span]) -> None:
    await asyncio.sleep(fault.at)
    print(fault, flush=True)
    begin = traffic.now
    heal = await asyncio.to_thread(it.begin, fault)
    await asyncio.sleep(fault.seconds)
    await asyncio.to_thread(heal)
    spans.append(Span(fault, begin, traffic.now))


def _describe(outcome: Outcome) -> str:
    answer, expected = outcome.answer, outcome.expected
    if not answer.error:
        return f"{answer.whole!r:.300} where {expected.whole!r:.300} was due"
    is_begun = "in a stream" if answer.text else "before its first token"
    return f"status {answer.status}, code {answer.code!r} {is_begun}: {answer.error[:300]}"


def _write(path: Path, outcomes: Sequence[Outcome], spans: Sequence[Span]) -> None:
    """Writes the faults, and the streams that are not exact or that had a long gap, by time."""
    lines = [(s.begin, f"{s.begin:.1f} to {s.end:.1f} s: {s.fault}") for s in spans]
    for outcome in outcomes:
        answer, begin = outcome.answer, outcome.begin
        if outcome.is_exact and max(answer.longest_gap, answer.first) < _LONG_GAP:
            continue
        what = "exact" if outcome.is_exact else excuse(outcome, spans) or _describe(outcome)
        end = begin + answer.gap_end
        gap = f"gap from {end - answer.longest_gap:.1f} to {end:.1f} s, first {answer.first:.1f} s"
        line = f"{begin:.1f} to {outcome.end:.1f} s at ingress {outcome.ingress}: {gap}, {what}"
        lines.append((outcome.end, line))
    path.write_text("".join(f"{line}\n" for _, line in sorted(lines)))


def _percentiles(what: str, seconds: Sequence[float]) -> str:
    found = sorted(seconds)
    return f"{what}: {found[-1]:.1f} s at most; 99 % under {found[int(len(found) * 0.99)]:.1f} s"


def _groups(outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    """Returns the outcomes with the same error together, the largest groups first."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(re.sub(r"[0-9a-f]{2,}", "", _describe(outcome)), []).append(outcome)
    return sorted(groups.values(), key=len, reverse=True)[:20]


def _report(outcomes: Sequence[Outcome], spans: Sequence[Span], left: Sequence[str]) -> int:
    counted: Counter[str] = Counter()
    wrong: list[Outcome] = []
    for outcome in outcomes:
        cause = "exact" if outcome.is_exact else excuse(outcome, spans)
        counted[cause or "WRONG"] += 1
        if not cause:
            wrong.append(outcome)
    exact = [outcome for outcome in outcomes if outcome.is_exact]
    moved = [o.answer.longest_gap for o in exact if not is_without_plane(o, spans)]
    print(f"\n{len(outcomes)} streams, {len(spans)} faults")
    for cause, number in counted.most_common():
        print(f"{number:6}  {cause}")
    if exact:
        print(_percentiles("longest gap in a stream", [o.answer.longest_gap for o in exact]))
        print(_percentiles("the same while NATS ran", moved or [0.0]))
        print(_percentiles("wait for the first text", [o.answer.first for o in exact]))
    for alike in _groups(wrong):
        first = alike[0]
        print(
            f"WRONG {len(alike)} times, first from {first.begin:.1f} to {first.end:.1f} s at "
            f"ingress {first.ingress}: {_describe(first)}"
        )
    for each in left:
        print(f"LEFT {each}")
    return 1 if wrong or left or not outcomes else 0
