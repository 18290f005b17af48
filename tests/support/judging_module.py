"""A module of guides for `open_judge` whose judgement does what the guide says."""

import os
import signal
import time
from itertools import count

from dynemo.engines.guides.verdict import GuideRefused, GuideUnsupported

_numbers = count(1)


def load() -> None:
    pass


def judge(kind: str, text: str) -> str:
    """Returns the process's id and the number of the judgement in it, unless the text says else."""
    match text:
        case "busy":
            while True:
                pass
        case "slow":
            end = time.process_time() + 0.02
            while time.process_time() < end:
                pass
        case "asleep":
            time.sleep(600)
        case "memory":
            bytearray(2**30)
        case "grown":
            kept.append(bytes(80 * 2**20))  # address space; its pages cost no time
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "deep":
            return _deep(1)
        case "refused":
            raise GuideRefused("it is refused")
        case "unsupported":
            raise GuideUnsupported("This build cannot do it.")
    return f"{os.getpid()} {next(_numbers)} {kind}"


kept: list[bytes] = []


def _deep(depth: int) -> str:
    return _deep(depth + 1)
