"""Makes the environments of the clients that `tests/clients` runs: `.venv/NAME` from each lock.

They are apart from the tests' own environment, and from each other, because clients exclude each
other's packages.
"""

import shutil
import sys
from pathlib import Path

from dynemo.environments.installer import find_installer

ROOT = Path(__file__).parent.parent


def main() -> None:
    installer = find_installer(sys.executable, lambda: None)
    for name in sys.argv[1:]:
        lock = (ROOT / "tools" / "locks" / f"{name}.txt").read_text(encoding="utf-8")
        lines = lock.replace("\\\n", " ").splitlines()
        folder = ROOT / ".venv" / name
        shutil.rmtree(folder, ignore_errors=True)
        installer.make(folder)
        installer.install(folder, [line for line in lines if line and not line.startswith("#")])


main()
