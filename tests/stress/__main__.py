"""`python -m stress chaos|soak`: long runs of a whole pool. Each prints what it found.

`PYTHONPATH=tests` makes the package importable; `make chaos` and `make soak` set it.
"""

import argparse
import random
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m stress", description=__doc__)
    parser.add_argument("what", choices=("chaos", "soak"))
    parser.add_argument("--minutes", type=float, default=0, help="20 for chaos, 30 for soak")
    parser.add_argument("--seed", type=int, help="replays a run of chaos")
    parser.add_argument("--logs", type=Path, help="keeps the logs of all processes there")
    given = parser.parse_args()
    if given.what == "chaos":
        from stress import chaos

        seed = random.SystemRandom().randrange(10_000) if given.seed is None else given.seed
        return chaos.run((given.minutes or 20) * 60, seed, given.logs)
    from stress import soak

    return soak.run((given.minutes or 30) * 60, given.logs)


if __name__ == "__main__":
    sys.exit(main())
