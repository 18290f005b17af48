"""`python -m dynemo` and the `dynemo-run` command."""

import signal
import sys


def main() -> None:
    try:
        from dynemo.cli import main as run
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
