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
from stress.verdict import Outcome, Span, excuse
from stress.world import MARK, World, can_cut, world
from support.command import serving

STREAMS = 80
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
    gaps = sorted(outcome.answer.longest_gap for outcome in outcomes if outcome.is_exact)
    print(f"\n{len(outcomes)} streams, {len(spans)} faults")
    for cause, number in counted.most_common():
        print(f"{number:6}  {cause}")
    if gaps:
        p99 = gaps[int(len(gaps) * 0.99)]
        print(f"longest gap in a stream: {gaps[-1]:.1f} s; 99 % under {p99:.1f} s")
    for alike in _groups(wrong):
        first = alike[0]
        print(
            f"WRONG {len(alike)} times, first from {first.begin:.1f} to {first.end:.1f} s at "
            f"ingress {first.ingress}: {_describe(first)}"
        )
    for each in left:
        print(f"LEFT {each}")
    return 1 if wrong or left or not outcomes else 0
