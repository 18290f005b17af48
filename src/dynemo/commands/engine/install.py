"""`dynemo-run engine install` and `remove`.

An environment is built in a new folder, and is in use when `environment.json` names it. So an
installation that fails or is interrupted leaves the environment before it as it was.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from msgspec import json

from dynemo.environments.find import distributions, refuse_old, site_packages, version_in
from dynemo.environments.installed import (
    Environment,
    environment_file,
    home_of,
    python_of,
    read_environment,
)
from dynemo.environments.installer import HASH, Installer, find_installer
from dynemo.environments.registry import ENGINES
from dynemo.environments.variants import PackageSource, Variant
from dynemo.errors import DynemoError, UsageError
from dynemo.spelling import either, visible
from dynemo.terminal.status_line import StatusLine, gigabytes, status_line

#: The names that `install` makes in an engine's folder.
_MADE = re.compile(r"[a-z0-9_.]+-[0-9a-f]{8}|environment\.(?:json|new)")


def install(variant: Variant, python: str = sys.executable) -> int:
    """Makes the environment, unless it exists. Returns the exit code. Raises DynemoError."""
    engine, home = variant.engine, home_of(variant.engine)
    with _locked(engine):
        before = read_environment(engine)
        source = variant.source()
        name = _folder_name(variant, source, _version_of(python, variant))
        if before is not None and before.folder == name and python_of(before).exists():
            print(visible(f"{_describe(before)} is installed already."))
            return 0
        kept = before.folder if before is not None and before.folder != name else ""
        _clear(home, keep=kept)
        _check_space(home, variant)
        try:
            made, seconds = _build(variant, source, home / name, python)
        except BaseException as error:
            with _signals_ignored():
                _clear(home, keep=kept)
            if isinstance(error, KeyboardInterrupt):
                print(
                    "dynemo-run: Interrupted; the files of this attempt are removed.",
                    file=sys.stderr,
                )
            raise
        _point_to(made)
        _clear(home, keep=name)
    print(visible(f"{_describe(made)} · {gigabytes(made.bytes)} · {seconds} s · {home / name}"))
    for text in made.workarounds:
        print(visible(f"Workaround: {text}"))
    if variant.besides:
        print(visible(variant.besides))
    return 0


def remove(engine: str) -> int:
    """Removes the environment. Raises UsageError if there is none."""
    with _locked(engine):
        if not home_of(engine).exists():
            raise UsageError(
                f"`engine install` has made no environment for {engine}, so none can be removed."
            )
        environment_file(engine).unlink(missing_ok=True)  # first, because the rest takes long
        try:
            _clear(home_of(engine), keep="")
        except OSError as error:
            raise DynemoError(
                f"The environment of {engine} cannot be removed: {error.strerror}. Remove "
                f"{home_of(engine)} yourself."
            ) from None
    print(visible(f"The environment of {engine} is removed."))
    return 0


def _build(
    variant: Variant, source: PackageSource | None, folder: Path, python: str
) -> tuple[Environment, int]:
    with _signals_as_exits(), status_line() as line:
        folder.mkdir(parents=True)
        steps = _Steps(line, variant, folder)
        installer = find_installer(python, steps.show)
        steps.begin("making the environment")
        installer.make(folder)
        _install_all(variant, source, folder, installer, steps)
        site = site_packages(folder)
        assert site is not None
        for workaround in variant.workarounds:
            workaround.apply(site)
        version = version_in(site, ENGINES[variant.engine])
        if version is None:
            raise DynemoError(
                f"{variant.engine} is missing after {installer.name} has installed its packages."
            )
        made = Environment(
            engine=variant.engine,
            version=version,
            device=variant.device,
            folder=folder.name,
            bytes=_size(folder),
            workarounds=[each.text for each in variant.workarounds],
        )
        return made, line.seconds


class _Steps:
    """The status line while the installer runs."""

    def __init__(self, line: StatusLine, variant: Variant, folder: Path) -> None:
        self._line = line
        self._folder = folder
        self._used = shutil.disk_usage(folder).used
        self._engine = variant.engine
        self._about = f" ({variant.size} GB in all)" if variant.size >= 1 else ""
        self._step = ""
        self._packages = 0

    def begin(self, step: str, packages: int = 0) -> None:
        self._step = step
        self._packages = packages

    def show(self) -> None:
        if not self._line.is_due():
            return
        step, site = self._step, site_packages(self._folder)
        if self._packages and site is not None:
            step = f"{len(distributions(site))} of {self._packages} packages"
        written = max(0, shutil.disk_usage(self._folder).used - self._used)
        self._line.show(
            f"installing {self._engine} · {self._line.seconds} s · {step} · "
            f"{gigabytes(written)} written{self._about}"
        )


def _install_all(
    variant: Variant,
    source: PackageSource | None,
    folder: Path,
    installer: Installer,
    steps: _Steps,
) -> None:
    lines = variant.requirements
    sourced = [line for line in lines if source and _name(line) in source.names]
    if source is not None and sourced:
        names = " and ".join(source.names)
        builds = [_with_build(line, source.build) for line in sourced]
        if not _install_configured(installer, folder, builds, steps, names):
            steps.begin(f"{names} from {source.url}")
            _try(installer, folder, builds, variant, source=source)
    rest = [line for line in lines if line not in sourced]
    steps.begin("packages", len(lines))
    _try(installer, folder, rest, variant, with_dependencies=not variant.is_complete)


def _install_configured(
    installer: Installer, folder: Path, builds: list[str], steps: _Steps, names: str
) -> bool:
    """Tries the indexes of the user's pip configuration. Only for versions that name their build:
    another one could be a build for another device."""
    if not any("+" in line for line in builds):
        return False
    steps.begin(f"{names} from your package indexes")
    try:
        installer.install(folder, builds)
    except DynemoError:
        return False
    return True


def _try(
    installer: Installer,
    folder: Path,
    lines: list[str],
    variant: Variant,
    *,
    source: PackageSource | None = None,
    with_dependencies: bool = False,
) -> None:
    try:
        installer.install(folder, lines, source=source, with_dependencies=with_dependencies)
    except DynemoError as error:
        raise DynemoError(
            f"{variant.engine} is not installed, and the files of this attempt are removed. "
            f"{installer.name} ended with:\n{error}"
        ) from None


def _name(line: str) -> str:
    return re.split(r"[=<>!~ ;\[]", line, maxsplit=1)[0]


def _with_build(line: str, build: str) -> str:
    """The requirement of that build, which has other hashes than the listed ones."""
    pin, semicolon, marker = line.partition(HASH)[0].partition(" ;")
    return f"{pin}{build}{semicolon}{marker}"


def _folder_name(variant: Variant, source: PackageSource | None, version: str) -> str:
    """Equal for equal requirements, and only for these."""
    parts = [*variant.requirements, repr(source), version]
    parts += [workaround.text for workaround in variant.workarounds]
    return f"{variant.device}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:8]}"


def _version_of(python: str, variant: Variant) -> str:
    """The interpreter's version, `3.11`. Raises UsageError if the engine has no build for it."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run(
            [python, "-c", code], capture_output=True, text=True, timeout=30, check=True
        )
        version = done.stdout.strip()
        refuse_old("--python", python, version)
    except (OSError, subprocess.SubprocessError, ValueError):
        raise UsageError(
            f"--python {python} does not run as a Python interpreter; give another path."
        ) from None
    if variant.pythons and version not in variant.pythons:
        raise UsageError(
            f"{variant.engine} has no build for Python {version}; give the path of a Python "
            f"{either(variant.pythons)} with --python."
        )
    return version


def _check_space(home: Path, variant: Variant) -> None:
    folder = home
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < variant.size * 1e9:
        raise UsageError(
            f"{variant.engine} for {variant.device} needs about {variant.size} GB, and {folder} "
            f"has {gigabytes(free)} left; free some, or set XDG_DATA_HOME to another place."
        )


def _point_to(made: Environment) -> None:
    file = environment_file(made.engine)
    new = file.with_suffix(".new")
    new.write_bytes(json.format(json.encode(made), indent=2) + b"\n")
    new.replace(file)


def _clear(home: Path, *, keep: str) -> None:
    """Removes what `install` has made and is not in use: other versions, and the rest of killed
    attempts. Leaves everything else."""
    kept = {keep, "environment.json"} if keep else set()
    for entry in home.iterdir() if home.exists() else ():
        if entry.name in kept or not _MADE.fullmatch(entry.name):
            continue
        is_folder = entry.is_dir() and not entry.is_symlink()
        shutil.rmtree(entry) if is_folder else entry.unlink()
    if not kept:
        with contextlib.suppress(OSError):  # a file of somebody else's is there
            home.rmdir()


def _size(folder: Path) -> int:
    """Bytes on the disk."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            total += os.lstat(os.path.join(place, name)).st_blocks * 512
    return total


def _describe(made: Environment) -> str:
    return f"{made.engine} {made.version} for {made.device}"


@contextlib.contextmanager
def _locked(engine: str) -> Iterator[None]:
    """Lets one `install` or `remove` of an engine run at a time."""
    folder = home_of(engine).parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / f".{engine}.lock").open("w")
    except OSError as error:
        raise UsageError(
            f"Cannot keep engines in {folder}: {error.strerror}; set XDG_DATA_HOME to another "
            "place."
        ) from None
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(
                f"{engine} is being installed or removed by another process; wait until it ends."
            ) from None
        yield


@contextlib.contextmanager
def _signals_as_exits() -> Iterator[None]:
    """Lets SIGTERM and SIGHUP raise SystemExit, so that unfinished files are removed."""

    def stop(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    """Ignores a second Ctrl-C, which would stop the removal that the first one has started."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
