"""Runs targets. A failing input goes to the target's corpus, which every later run repeats.

Each target runs in a process of its own. It writes each input to a file before it reads it. So the
input that kills or blocks the process is known.
"""

import hashlib
import multiprocessing
import random
import resource
import tempfile
import time
from pathlib import Path

from fuzz.mutate import mutate
from fuzz.targets import ALLOWED, CORPUS, TARGETS, Target

_SECONDS = 10.0  #: for one input
_MEMORY = 4 << 30  #: bytes of a process


def inputs(target: Target, chance: random.Random, number: int) -> list[bytes]:
    """Returns new inputs."""
    seeds = [*target.seeds(), *target.corpus()]
    made = []
    for _ in range(number):
        if target.make is not None and chance.random() < 0.7:
            data = target.make(chance)
            if chance.random() < 0.8:
                made.append(data)
                continue
        else:
            data = chance.choice(seeds)
        made.append(mutate(data, seeds, target.words, chance))
    return made


def problem(target: Target, data: bytes) -> str:
    """Reads one input. Returns what went wrong, or ""."""
    try:
        target.read(data)
    except ALLOWED:
        return ""
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]
    return ""


def run(seconds: float, seed: int) -> int:
    """Fuzzes all targets for this time in all. Returns the exit code."""
    found = 0
    for target in TARGETS:
        found += _run_target(target, seconds / len(TARGETS), seed)
    return 1 if found else 0


def _run_target(target: Target, seconds: float, seed: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        current, failed = Path(folder) / "current", Path(folder) / "failed"
        failed.mkdir()
        end = time.monotonic() + seconds
        count = killed = 0
        while time.monotonic() < end:
            process = multiprocessing.get_context("spawn").Process(
                target=_work, args=(target.name, seed + count, end - time.monotonic(), folder)
            )
            process.start()
            while process.is_alive() and time.monotonic() < end + _SECONDS:
                process.join(1)
                if current.exists() and time.time() - current.stat().st_mtime > _SECONDS:
                    break
            if process.is_alive() or process.exitcode:
                process.kill()
                process.join()
                killed += 1
                _keep(target, current.read_bytes(), f"ended with {process.exitcode}, or blocked")
            count += 1
            current.unlink(missing_ok=True)
        problems = [path.read_bytes() for path in failed.iterdir()]
        for data in problems:
            _keep(target, data, problem(target, data))
        print(f"{target.name}: {len(problems) + killed} failures", flush=True)
        return len(problems) + killed


def _work(name: str, seed: int, seconds: float, folder: str) -> None:
    """Runs in a process of its own."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    target = next(each for each in TARGETS if each.name == name)
    chance = random.Random(seed)
    current = Path(folder) / "current"
    end = time.monotonic() + seconds
    seen: set[str] = set()
    while time.monotonic() < end:
        for data in inputs(target, chance, 50):
            current.write_bytes(data)
            if (what := problem(target, data)) and what.partition(":")[0] not in seen:
                seen.add(what.partition(":")[0])
                (Path(folder) / "failed" / _name(data)).write_bytes(data)


def _keep(target: Target, data: bytes, what: str) -> None:
    folder = CORPUS / target.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _name(data)).write_bytes(data)
    print(f"{target.name}: {what}; the input is kept as {_name(data)}", flush=True)


def _name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
