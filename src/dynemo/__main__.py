"""`python -m dynemo` and the `dynemo-run` command."""

import sys


def main() -> None:
    from dynemo.cli import main as run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
