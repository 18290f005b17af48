"""`python -m stress soak`: mixed load in rounds, and a look at what each round leaves behind.

Two servers get the same mix: one with llama.cpp, and an ingress in front of two echo workers. After
each round nothing runs. Then memory, descriptors, threads, tasks and sequences are read. The first
rounds warm up. Afterwards memory may grow by 2 %, and the other figures may not grow at all.
"""

import asyncio
import os
import random
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from dynemo.limits import TRIM_SECONDS
from stress import leftovers
from stress.mix import KINDS, Client
from stress.world import MARK
from support.command import Server, children, serving
from support.dyn_fleet import fleet, scrape
from support.etcd_server import EtcdServer
from support.nats_process import NatsProcess

_ROUND = 12.0  #: seconds of load
_QUIET = 30.0  #: seconds within which everything must have ended
_CLIENTS = 12  #: for each server
_GROWTH = 0.02
#: Threads of the event loop's pool, which starts them when it first needs them.
_POOL = min(32, (os.cpu_count() or 1) + 4)
#: Bytes that a process may grow by in a short run, in which caches still fill.
_FILLING, _SHORT = 4 << 20, 10  # rounds
_DELAY_MS = "10"
#: Its cache of prompts would otherwise grow to 8 GB, which takes longer than the run.
_SERVER = ("out=llama_cpp", "--max-queue", "1000", "--", "--cache-ram", "16")


@dataclass(frozen=True)
class Reading:
    """One process at rest."""

    memory: int  #: bytes, resident
    descriptors: int
    threads: int


@dataclass(frozen=True)
class Rest:
    """All processes at rest, by name, and what their servers say of themselves."""

    processes: dict[str, Reading]
    gauges: dict[str, float]


def run(seconds: float, keep: Path | None) -> int:
    """Returns the exit code."""
    run_id = os.environ[MARK] = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="dx-", dir="/tmp") as folder:
        os.environ["TMPDIR"] = folder
        with ExitStack() as stack:
            etcd = EtcdServer()
            stack.callback(etcd.close)
            etcd.start()
            nats = NatsProcess()
            stack.callback(nats.stop)
            etcd.wait()
            flags = ["--etcd", etcd.address, "--nats", nats.url, "--lease-ttl", "5"]
            with fleet(flags) as pool, serving(*_SERVER, timeout=60) as local:
                workers = pool.workers(2, delay_ms=float(_DELAY_MS))
                ingress = pool.ingress("--max-queue", "1000", workers=2)
                pids = {"server": local.process.pid, "ingress": ingress.process.pid}
                pids |= {f"worker {n}": each.process.pid for n, each in enumerate(workers)}
                pids |= {
                    f"host of {name}": children(pid)[0]
                    for name, pid in pids.items()
                    if name != "ingress"
                }
                rests, counted = asyncio.run(_rounds(local, ingress, pids, seconds))
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / "server.log").write_text("\n".join(local.lines))
                    (keep / "ingress.log").write_text("\n".join(ingress.lines))
            left = asyncio.run(leftovers.keys(etcd.address))
        left += leftovers.marked(MARK, run_id) + leftovers.files([Path(folder)])
    return _report(rests, counted, left)


async def _rounds(
    local: Server, ingress: Server, pids: dict[str, int], seconds: float
) -> tuple[list[Rest], Counter[str]]:
    counted: Counter[str] = Counter()
    rests: list[Rest] = []
    chance = random.Random(0)
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(rests) < 4:
        until = time.monotonic() + _ROUND
        clients = [
            Client(each.url, chance.randrange(1 << 30))
            for each in (local, ingress)
            for _ in range(_CLIENTS)
        ]
        await asyncio.gather(*(client.run(until, counted) for client in clients))
        rests.append(await _rest({"server": local, "ingress": ingress}, pids))
        last = rests[-1]
        memory = ", ".join(f"{n} {r.memory / 1e6:.1f}" for n, r in last.processes.items())
        print(f"round {len(rests)}: {sum(counted.values())} requests; MB: {memory}", flush=True)
    return rests, counted


async def _rest(servers: dict[str, Server], pids: dict[str, int]) -> Rest:
    """Waits until nothing runs, then reads everything."""
    deadline = time.monotonic() + _QUIET
    while True:
        await asyncio.sleep(0.5)
        gauges: dict[str, float] = {}
        for name, server in servers.items():
            for key, value in (await asyncio.to_thread(scrape, server)).items():
                if key.startswith(
                    (
                        "dynemo_engine_running",
                        "dynemo_engine_waiting",
                        "dynemo_requests_in_flight",
                        "dynemo_requests_queued",
                    )
                ):
                    gauges[f"{name} {key}"] = value
        if not any(gauges.values()) or time.monotonic() > deadline:
            break
    # Freed memory goes back to the system, at the latest after a whole period without a body.
    await asyncio.sleep(2 * TRIM_SECONDS + 1)
    for name, server in servers.items():
        gauges[f"{name} tasks"] = (await asyncio.to_thread(scrape, server))["dynemo_tasks"]
    return Rest({name: _read(pid) for name, pid in pids.items()}, gauges)


def _read(pid: int) -> Reading:
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return Reading(
        memory=int(status["VmRSS"].split()[0]) * 1024,
        descriptors=len(list(Path(f"/proc/{pid}/fd").iterdir())),
        threads=int(status["Threads"]),
    )


def _report(rests: Sequence[Rest], counted: Counter[str], left: Sequence[str]) -> int:
    problems = [f"left: {each}" for each in left]
    problems += [f"no request of kind {kind} ended" for kind in KINDS if not counted[kind]]
    problems += [f"{kind}: {number}" for kind, number in counted.items() if " " in kind]
    warm = rests[max(1, len(rests) // 3) :]
    early, late = warm[: max(1, len(warm) // 2)], warm[len(warm) // 2 :]
    for name in rests[0].processes:
        before, after = ([rest.processes[name] for rest in part] for part in (early, late))
        memory = [min(each.memory for each in part) for part in (before, after)]
        growth = memory[1] - memory[0]
        print(f"{name:20} {memory[0] / 1e6:7.1f} -> {memory[1] / 1e6:7.1f} MB")
        if growth > max(_GROWTH * memory[0], _FILLING * (len(rests) < _SHORT)):
            problems.append(f"{name} grew by {growth / memory[0]:.1%}")
        for figure in ("descriptors", "threads"):
            least = [min(getattr(each, figure) for each in part) for part in (before, after)]
            if least[1] > least[0] + (_POOL if figure == "threads" else 0):
                problems.append(f"{name} has {least[1]} {figure} after {least[0]}")
    for key, value in rests[-1].gauges.items():
        first = min(rest.gauges.get(key, 0) for rest in early)
        if value > (first if key.endswith(" tasks") else 0):
            problems.append(f"{key} is {value:g} at rest")
    print(", ".join(f"{number} {kind}" for kind, number in sorted(counted.items())))
    for problem in problems:
        print(f"WRONG {problem}")
    return 1 if problems else 0
