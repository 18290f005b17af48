"""`python -m dynemo` and the `dynemo-run` command."""

import sys

from dynemo.interrupt import interrupt_ends


def main() -> None:
    with interrupt_ends():
        from dynemo.app.cli import main as run
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
