"""`python -m stress chaos|soak|fuzz`: long runs. Each prints its findings, and fails if it has any.

`PYTHONPATH=tests` makes the package importable; `make chaos` and `make soak` set it.
"""

import argparse
import random
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m stress", description=__doc__)
    parser.add_argument("what", choices=("chaos", "soak", "fuzz"))
    parser.add_argument("--minutes", type=float, default=0, help="20; for soak 30")
    parser.add_argument("--seed", type=int, help="replays a run of chaos, or the inputs of fuzz")
    parser.add_argument("--logs", type=Path, help="keeps the logs of all processes there")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10_000) if given.seed is None else given.seed
    if given.what == "fuzz":
        from fuzz.run import run

        return run((given.minutes or 20) * 60, seed)
    if given.what == "chaos":
        from stress import chaos

        return chaos.run((given.minutes or 20) * 60, seed, given.logs)
    from stress import soak

    return soak.run((given.minutes or 30) * 60, given.logs)


if __name__ == "__main__":
    sys.exit(main())
