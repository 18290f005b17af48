"""Makes virtual environments and installs requirements, with uv, or with venv and pip.

Both use the package indexes of the user's pip configuration. uv does not read it, so it gets these
indexes in variables. What the programs print is kept, as the reason if they fail.
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
from dynemo.folders import temporary_folder

HASH = " --hash="  #: begins each hash of a requirement
_TICK = 0.1
_LINES = 12
_WIDTH = 400
#: The sections of `pip config list`; a later one wins.
_SECTIONS = ("global", "install", ":env:")


@dataclass(frozen=True)
class Installer:
    """`on_tick` is called every tenth of a second while a program runs."""

    python: str  #: makes the environments
    uv: Sequence[str]  #: the command; empty: use venv and pip
    on_tick: Callable[[], None]
    pip: dict[str, list[str]] = field(default_factory=dict)  #: pip's configured options

    @property
    def name(self) -> str:
        return "uv" if self.uv else "pip"

    def make(self, folder: Path) -> None:
        """Makes a virtual environment. Raises DynemoError."""
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
        """Installs into an environment of `make`. If all requirements have hashes, a file with
        another hash is refused. Raises DynemoError with the last lines that the installer printed.
        """
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
        command += ["--require-hashes"] if all(HASH in line for line in requirements) else []
        listed = folder / "requirements.txt"
        listed.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        indexes = _uv_indexes(self.pip) if self.uv and source is None else {}
        self._run([*command, "-r", str(listed)], folder, indexes)

    def _run(
        self, command: Sequence[str], folder: Path, variables: Mapping[str, str] | None = None
    ) -> None:
        with TemporaryFile(dir=temporary_folder()) as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder,  # a project in the user's folder may have settings for uv
                env={**_environment(self.pip), **(variables or {})},
                start_new_session=True,
            )
            try:
                while process.poll() is None:
                    self.on_tick()
                    time.sleep(_TICK)
            finally:
                _end(process)
            if process.returncode != 0:
                output.seek(0)
                raise DynemoError(_reason(output.read().decode(errors="replace")))


def find_installer(python: str, on_tick: Callable[[], None]) -> Installer:
    """uv if it is on the PATH or installed beside us; else pip."""
    program = shutil.which("uv")
    if program is None and find_spec("uv") is not None:
        return Installer(python, (sys.executable, "-m", "uv"), on_tick, configured_pip())
    return Installer(python, (program,) if program else (), on_tick, configured_pip())


def configured_pip() -> dict[str, list[str]]:
    """pip's options from the user's files and variables, by name (`find-links`)."""
    pip = [sys.executable, "-m", "pip"] if find_spec("pip") else [shutil.which("pip") or ""]
    try:
        done = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return {}
    found: dict[str, dict[str, list[str]]] = {section: {} for section in _SECTIONS}
    for line in done.stdout.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if section in found:
            with contextlib.suppress(ValueError, SyntaxError):
                found[section][option] = str(ast.literal_eval(value)).split()
    return {option: value for each in found.values() for option, value in each.items()}


def _uv_indexes(pip: dict[str, list[str]]) -> dict[str, str]:
    """Variables that give uv the indexes of pip. Options would not do: the address of an index may
    hold a password, and everybody can read a command line."""
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
    """Ends its process group if it still runs."""
    for number in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)
            try:
                process.wait(2)
            except subprocess.TimeoutExpired:
                continue


def _reason(output: str) -> str:
    """The last lines, in which an installer names its error."""
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if not line.startswith("WARNING:")] or lines
    return "\n".join(line[:_WIDTH] for line in errors[-_LINES:])
