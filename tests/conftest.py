"""Fixtures that many tests share: the demo model's files, and the engines' environments."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from dynemo.environments.installed import python_of, read_environment
from dynemo.models.find import demo_checkout, demo_gguf

ROOT = Path(__file__).parent.parent

pytest_plugins = [
    "support.browser",
    "support.certificates",
    "support.dyn_fixtures",
    "support.parallel",
    "support.processes",
    "support.recorded_servers",
]

#: `make engines` installs engines into this folder. Processes that the tests start look there, not
#: in the user's own folder.
os.environ["XDG_DATA_HOME"] = str(ROOT / ".venv" / "data")
#: Without bytecode files each start of vLLM or SGLang takes twice as long: it compiles some 5,000
#: modules.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
#: A script's background job and some CI systems start the tests with SIGINT ignored. Child
#: processes would inherit that, and tests of Ctrl-C would fail.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
#: A test does not assert a speed: on a busy machine any example may take long.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Sets a temporary folder for the processes of the test.

    Its path is short, because engines keep sockets there.
    """
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


@pytest.fixture(scope="session")
def demo() -> Path:
    """Returns the demo model's GGUF (Q8_0)."""
    return demo_gguf()


@pytest.fixture(scope="session")
def demo_folder() -> Path:
    """Returns the demo model's checkout."""
    return demo_checkout()


@pytest.fixture(scope="session")
def demo_f32(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model's GGUF in F32, made from the checkout."""
    file = tmp_path_factory.mktemp("f32") / "demo-f32.gguf"
    convert = ROOT / "tools" / "demo_model" / "convert.py"
    subprocess.run([sys.executable, convert, demo_folder, file, "--type", "f32"], check=True)
    return file


@pytest.fixture(scope="session")
def engine_python() -> Callable[[str], str]:
    """Returns a function: `engine_python("vllm")` is the Python of that engine's environment.

    `dynemo-run` finds that environment by itself. The function skips the test if `make engines` has
    not made it. `DYNEMO_TEST_VLLM_PYTHON` may name another Python, for `spawn` and
    `--engine-python`.
    """

    def find(engine: str) -> str:
        given = os.environ.get(f"DYNEMO_TEST_{engine.upper()}_PYTHON")
        environment = read_environment(engine)
        python = given or (str(python_of(environment)) if environment else "")
        if not os.access(python, os.X_OK):
            pytest.skip(f"{engine} is not installed: `make engines` installs it for the tests")
        return python

    return find
