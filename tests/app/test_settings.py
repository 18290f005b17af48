"""Each run reads every setting that it accepts, and refuses all others by name."""

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

import dynemo
from dynemo.app.arguments import parse
from dynemo.app.settings.config import collect
from dynemo.app.settings.modes import Mode, parse_mode
from dynemo.app.settings.option import Option, setting
from dynemo.app.settings.options import OPTIONS, Config
from dynemo.app.settings.scopes import Scope
from dynemo.errors import UsageError
from dynemo.router.modes import MODES as ROUTER_MODES
from dynemo.router.router import make_router
from support import reads_program
from support.pseudo_terminal import CTRL_D, Terminal

SIDES = {
    "chat": ["in=text", "out=echo"],
    "prompt": ["in=stdin", "out=llama_cpp"],
    "batch": ["in=batch:prompts.jsonl", "out=own.py"],
    "server": ["in=http"],
    "server-vllm": ["in=http", "out=vllm"],
    "server-trtllm": ["in=http", "out=trtllm"],
    "worker": ["in=dyn://pool", "out=sglang"],
    "follower": ["in=none", "out=sglang"],
    "ingress": ["in=http", "out=dyn://pool"],
    "ingress-text": ["in=text", "out=dyn"],
}
VALUES = {
    "ON|OFF": "off",
    "SPLIT|RAW": "raw",
    "PATH": "/tmp", "DIR": "/tmp", "FILE": "file", "NAME": "name", "N": "5", "HOST:PORT": "h:1",
    "TEXT": "text", "HOST": "h", "PORT": "1", "SECONDS": "3", "[HOST:]PORT": "h:1", "WHERE": "file",
    "HOSTS": "h:1", "URLS": "nats://h:1", "HOST[:PORT]": "h", "PLANE": "tcp", "MODE": "prefix",
    "FORMAT": "json", "KEY": "sk-1", "ORIGIN": "https://o.example", "SHARE": "0.5",
    "HOW": "parse",
}  # fmt: skip
#: Settings that a run reads before it has a Config, or only with an instance on NATS, as in
#: tests/commands/test_ps.py.
READ_ELSEWHERE = {"config", "nats"}


def flags(option: Option) -> list[str]:
    return [option.name, VALUES[option.metavar]] if option.metavar else [option.name]


@pytest.mark.parametrize("sides", SIDES.values(), ids=SIDES)
@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.field)
def test_a_flag_is_stored_or_refused_by_name(
    option: Option, sides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    try:
        config = parse([*sides, *flags(option)]).config
    except UsageError as error:
        sentence = str(error)
        assert sentence.startswith(f"{option.name} needs ")
        assert sentence.endswith(".")
    else:
        default = Config.__dataclass_fields__[option.field].default
        assert getattr(config, option.field) != default


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.field)
def test_a_variable_that_does_not_apply_is_left_out_and_reported(option: Option) -> None:
    text = VALUES[option.metavar] if option.metavar else "1"
    name = f"DYNEMO_{option.keys[0].upper()}"
    if option.field == "config":
        pytest.skip("the file of settings itself")
    settings = collect({}, {name: text})
    default = Config.__dataclass_fields__[option.field].default
    for sides in SIDES.values():
        mode = parse_mode(
            *(next((w[len(s) :] for w in sides if w.startswith(s)), "") for s in ("in=", "out="))
        )
        config, unused = settings.for_mode(mode)
        assert (getattr(config, option.field) == default) == (unused == [name])


def test_a_row_must_have_a_scope_with_something_in_it() -> None:
    with pytest.raises(ValueError, match="applies somewhere"):
        setting(1, int, Option(topic="t", help="h", where=()))
    with pytest.raises(ValueError, match="no run"):
        Scope("nothing", frozenset({"http"}), frozenset())
    with pytest.raises(ValueError, match="no such"):
        Scope("in=htpp", frozenset({"htpp"}), frozenset({"echo"}))


def test_every_row_reads_well() -> None:
    for option in OPTIONS:
        assert option.help[0].isupper()
        assert option.help.endswith(".")
        assert len(option.help) < 160
    assert len({key for option in OPTIONS for key in option.keys}) == sum(
        len(o.keys) for o in OPTIONS
    )


def test_every_row_is_read_outside_of_the_table() -> None:
    """The runs below test some modes. This test covers all modes."""
    package = Path(dynemo.__file__).parent
    read: set[str] = {"config"}  # `collect` reads it
    for path in package.rglob("*.py"):
        if "settings" in path.relative_to(package).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("config"):
                read.add(node.attr)
    read |= {"request_plane"} if "plane" in read else set()
    assert {option.field for option in OPTIONS} <= read


def test_the_router_has_the_modes_of_the_table() -> None:
    for mode in ROUTER_MODES:
        make_router(mode)


class Reads:
    """Runs the command, and records which settings it accepts and which it reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.accepted: set[str] = set()
        self.read: set[str] = set()
        self._file = folder / "read"

    def command(self, *words: str) -> list[str]:
        self._file.unlink(missing_ok=True)
        return [sys.executable, reads_program.__file__, str(self._file), *words]

    def run(self, *words: str, until: str = "") -> None:
        """Runs the command to its end, or stops it once it has printed `until`."""
        process = subprocess.Popen(
            self.command(*words),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "DYNEMO_TOKEN_ECHO_DELAY_MS": "0"},
        )
        assert process.stdin is not None
        assert process.stderr is not None
        with process, process.stderr as lines:
            process.stdin.write("Hello")
            process.stdin.close()
            said = ""
            for line in lines:
                said += line
                if until and until in line:
                    process.send_signal(signal.SIGTERM)
        assert "Traceback" not in said, said
        self.note(words)

    def note(self, words: Iterable[str]) -> None:
        self.read |= set(self._file.read_text().split())
        if tuple(words) == ("ps",):
            mode = Mode(command="ps")
            config = Config()
        else:
            invocation = parse(list(words))
            mode, config = invocation.mode, invocation.config
        self.accepted |= {
            option.field
            for option in OPTIONS
            if any(scope.has(mode) and not scope.missing(config) for scope in option.where)
        }

    def check(self) -> None:
        assert self.read & {option.field for option in OPTIONS}
        unread = self.accepted - self.read - READ_ELSEWHERE
        assert not unread, f"the run accepts these settings but never reads them: {unread}"


@pytest.fixture
def reads(tmp_path: Path) -> Reads:
    return Reads(tmp_path)


def test_a_prompt_reads_what_it_accepts(reads: Reads) -> None:
    reads.run("in=stdin", "out=echo")
    reads.check()


def test_a_batch_reads_what_it_accepts(reads: Reads) -> None:
    file = reads.folder / "prompts.jsonl"
    file.write_text('{"text": "Hello"}\n')
    reads.run(f"in=batch:{file}", "out=echo")
    reads.check()


def test_a_chat_reads_what_it_accepts(reads: Reads) -> None:
    words = ["in=text", "out=echo"]
    terminal = Terminal(reads.command(*words), reads.folder)
    try:
        terminal.wait("Ctrl-D leaves.")
        terminal.type(CTRL_D)
        terminal.process.wait(10)
    finally:
        terminal.close()
    reads.note(words)
    reads.check()


def test_a_server_reads_what_it_accepts(reads: Reads) -> None:
    reads.run("in=http", "out=echo", "--http-port", "0", until="http://")
    reads.check()


def test_a_worker_reads_what_it_accepts(reads: Reads) -> None:
    where = ("--discovery", f"file:{reads.folder}/found")
    reads.run("in=dyn://pool", "out=echo", *where, until="engine echo")
    reads.run(
        "in=dyn://pool",
        "out=echo",
        *where,
        "--request-plane",
        "nats",
        "--nats",
        "nats://127.0.0.1:1",
    )
    reads.run("in=dyn://pool", "out=echo", "--etcd", "127.0.0.1:1")
    reads.check()


def test_an_ingress_reads_what_it_accepts(reads: Reads) -> None:
    where = ("--discovery", f"file:{reads.folder}/found")
    words = ("in=http", "out=dyn://pool", "--http-port", "0")
    reads.run(*words, *where, until="http://")
    reads.run(*words, *where, "--request-plane", "nats", "--nats", "nats://127.0.0.1:1")
    reads.run(*words, "--etcd", "127.0.0.1:1")
    reads.check()


def test_a_follower_reads_what_it_accepts(reads: Reads, demo_folder: Path) -> None:
    python = reads.folder / "python"
    python.write_text('#!/bin/sh\nif [ "$1" = -c ]; then echo 3.11; exit; fi\nexit 3\n')
    python.chmod(0o755)
    words = ["in=none", "out=sglang", str(demo_folder), "--engine-python", str(python)]
    words += ["--num-nodes", "2", "--node-rank", "1", "--dist-init-addr", "127.0.0.1:1"]
    reads.run(*words)
    reads.check()


def test_ps_reads_what_it_accepts(reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETCD_ENDPOINTS", "127.0.0.1:1")
    reads.run("ps")
    monkeypatch.setenv("DYNEMO_DISCOVERY", f"file:{reads.folder}/found")
    reads.run("ps")
    reads.check()
