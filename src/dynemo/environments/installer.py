"""uv, or venv and pip: makes a virtual environment and installs requirements into it.

Both take packages from where the user's configuration of pip says: uv does not read that, and is
told. What they print is kept, and is the reason where they fail.
"""

import ast
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile

from dynemo.environments.variants import PackageSource
from dynemo.errors import DynemoError

_TICK = 0.1
_LINES = 12
_WIDTH = 400
#: Of `pip config list`; a later one wins.
_SECTIONS = ("global", "install", ":env:")


@dataclass(frozen=True)
class Installer:
    """`tell` is called every tenth of a second while a program runs."""

    python: str  #: to make environments with
    uv: Sequence[str]  #: the command; empty: there is none, and venv and pip do it
    tell: Callable[[], None]
    pip: dict[str, list[str]] = field(default_factory=dict)  #: its options, as configured

    @property
    def name(self) -> str:
        return "uv" if self.uv else "pip"

    def make(self, folder: Path) -> None:
        """A virtual environment. Raises DynemoError."""
        if self.uv:
            command = [*self.uv, "venv", "--quiet", "--python", self.python, str(folder)]
        else:
            command = [self.python, "-m", "venv", str(folder)]
        self._run(command, folder.parent)

    def install(
        self,
        folder: Path,
        requirements: Sequence[str],
        *,
        source: PackageSource | None = None,
        with_dependencies: bool = False,
    ) -> None:
        """Into an environment that `make` made. Raises DynemoError with the installer's words."""
        python = str(folder / "bin" / "python")
        if self.uv:
            command = [*self.uv, "pip", "install", "--quiet", "--python", python]
            command += ["--index-strategy", "unsafe-best-match"] if source is None else []  # as pip
        else:
            command = [python, "-m", "pip", "install", "--quiet", "--no-input"]
        if source is not None:
            index = ["--index-url", source.url]
            command += index if source.is_index else ["--no-index", "--find-links", source.url]
        command += [] if with_dependencies else ["--no-deps"]
        listed = folder / "requirements.txt"
        listed.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        places = _places(self.pip) if self.uv and source is None else {}
        self._run([*command, "-r", str(listed)], folder, places)

    def _run(
        self, command: Sequence[str], folder: Path, places: Mapping[str, str] | None = None
    ) -> None:
        with TemporaryFile() as said:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                cwd=folder,  # not where the user is: a project there may have settings for uv
                env={**_environment(self.pip), **(places or {})},
                start_new_session=True,
            )
            try:
                while process.poll() is None:
                    self.tell()
                    time.sleep(_TICK)
            finally:
                _end(process)
            if process.returncode != 0:
                said.seek(0)
                raise DynemoError(_reason(said.read().decode(errors="replace")))


def find_installer(python: str, tell: Callable[[], None]) -> Installer:
    """uv where it is on the PATH, or installed beside us; else pip."""
    program = shutil.which("uv")
    if program is None and find_spec("uv") is not None:
        return Installer(python, (sys.executable, "-m", "uv"), tell, configured_pip())
    return Installer(python, (program,) if program else (), tell, configured_pip())


def configured_pip() -> dict[str, list[str]]:
    """What the user's files and variables tell pip, by option (`find-links`)."""
    pip = [sys.executable, "-m", "pip"] if find_spec("pip") else [shutil.which("pip") or ""]
    try:
        said = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return {}
    found: dict[str, dict[str, list[str]]] = {section: {} for section in _SECTIONS}
    for line in said.stdout.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if section in found:
            with contextlib.suppress(ValueError, SyntaxError):
                found[section][option] = str(ast.literal_eval(value)).split()
    return {option: value for each in found.values() for option, value in each.items()}


def _places(pip: dict[str, list[str]]) -> dict[str, str]:
    """Variables for uv that send it where pip would look. No options: an index's address may hold
    a password, and the words of a command line are everybody's to read."""
    names = {"index-url": ("UV_INDEX_URL", " "), "extra-index-url": ("UV_EXTRA_INDEX_URL", " ")}
    names["find-links"] = ("UV_FIND_LINKS", ",")
    return {
        variable: separator.join(pip[option])
        for option, (variable, separator) in names.items()
        if option in pip
    }


def _environment(pip: dict[str, list[str]]) -> dict[str, str]:
    environment = dict(os.environ)
    for name in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_USER"):
        environment.pop(name, None)
    if "cert" in pip:
        environment.setdefault("SSL_CERT_FILE", pip["cert"][0])
    return environment


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ends it, and what it has started, where it still runs."""
    for number in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)
            try:
                process.wait(2)
            except subprocess.TimeoutExpired:
                continue


def _reason(said: str) -> str:
    """The last lines, where an installer says what was wrong."""
    lines = [line.rstrip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if not line.startswith("WARNING:")] or lines
    return "\n".join(line[:_WIDTH] for line in errors[-_LINES:])
