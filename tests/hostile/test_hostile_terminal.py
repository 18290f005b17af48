"""Control characters in foreign text: no terminal and no log may obey them."""

import ast
import json
import logging
import os
import pty
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dynemo.log import set_up
from dynemo.models.find import demo_checkout
from dynemo.spelling import quoted, visible, visible_json
from dynemo.terminal.status_line import StatusLine
from support.command import COMMAND, run

PACKAGE = Path(__file__).parents[2] / "src" / "dynemo"

#: It writes to the clipboard, sets the title, and asks the terminal to answer. It overwrites a
#: line, deletes, starts a C1 sequence, and turns the direction of writing around.
ATTACK = (
    "\x1b]52;c;ZXZpbA==\x07\x1b]0;title\x07\x1b[6nshown\roverwritten\x08\x7f\x9b2J\u202eabc\u2066"
)
ACTING = {*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), "\u202e", "\u2066"} - set("\n\t")


def acting(text: str) -> set[str]:
    """Returns the characters that a terminal would obey."""
    return ACTING & set(text)


def test_one_function_shows_them() -> None:
    assert not acting(visible(ATTACK))
    assert not acting(quoted(ATTACK))
    assert visible("a\n\tb, שלום, 👩‍👩‍👧") == "a\n\tb, שלום, 👩‍👩‍👧"
    text = json.dumps(ATTACK, ensure_ascii=False)
    assert not acting(visible_json(text))
    assert json.loads(visible_json(text)) == ATTACK


@pytest.fixture
def log_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_log_shows_them(
    form: str, capsys: pytest.CaptureFixture[str], log_as_it_was: None
) -> None:
    set_up(form, 0, is_server=False)
    forged = f"{ATTACK}\n12:00:00 error dynemo.http: forged"
    try:
        raise ValueError(forged)
    except ValueError:
        logging.getLogger("dynemo.test").exception("%s", forged, extra={"model": forged})
    written = capsys.readouterr().err
    assert "forged" in written
    assert not acting(written)
    if form == "text":
        line = next(line for line in written.splitlines() if "model=" in line)
        assert line.startswith("  12:00:00 error")


@pytest.fixture
def hostile_checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(demo_checkout(), folder)
    text = ATTACK.encode("unicode_escape").decode()
    (folder / "chat_template.jinja").write_text(
        f'{{{{ raise_exception("{text}") }}}}', encoding="utf-8"
    )
    return folder


@pytest.mark.processes
def test_a_templates_own_error_is_shown(hostile_checkout: Path) -> None:
    done = run(hostile_checkout, "out=echo", stdin="Hi")
    assert done.returncode == 2
    assert "]52;" in done.stderr
    assert not acting(done.stderr)


@pytest.mark.processes
@pytest.mark.parametrize("word", ["-v", "-vv"])
def test_a_traceback_is_shown(hostile_checkout: Path, word: str) -> None:
    done = run(hostile_checkout, "out=echo", word, stdin="Hi")
    assert "]52;" in done.stderr
    assert not acting(done.stderr)


@pytest.mark.processes
@pytest.mark.parametrize(
    "words", [[ATTACK, "out=echo"], [f"out={ATTACK}"], [f"in={ATTACK}"], [f"--{ATTACK}"]]
)
def test_a_name_in_an_error_is_shown(words: list[str]) -> None:
    done = run(*words, stdin="Hi")
    assert done.returncode == 2
    assert not acting(done.stderr)


@pytest.mark.processes
def test_a_name_of_a_file_is_shown(tmp_path: Path) -> None:
    folder = tmp_path / f"model {ATTACK.replace('/', '')}"
    shutil.copytree(demo_checkout(), folder)
    done = run(folder, "out=echo", stdin="Hi")
    assert done.returncode == 0
    assert "model" in done.stderr
    assert not acting(done.stderr)


@pytest.mark.processes
def test_a_pipe_gets_the_exact_prompt_and_a_terminal_a_visible_one(tmp_path: Path) -> None:
    messages = tmp_path / "messages.json"
    messages.write_text(json.dumps([{"role": "user", "content": ATTACK}]), encoding="utf-8")
    words = [*COMMAND, "render", str(demo_checkout()), "--messages", str(messages)]
    piped = subprocess.run(words, capture_output=True, timeout=15, check=True)
    assert ATTACK.encode() in piped.stdout
    leader, follower = pty.openpty()
    try:
        subprocess.run(words, stdout=follower, stderr=subprocess.PIPE, timeout=15, check=True)
        shown = os.read(leader, 100_000).decode().replace("\r\n", "\n")
    finally:
        os.close(leader)
        os.close(follower)
    assert "shown" in shown
    assert not acting(shown)


def test_a_status_line_is_one_visible_line(capsys: pytest.CaptureFixture[str]) -> None:
    StatusLine().show(f"loading {ATTACK}\nmore")
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert not acting(written)


#: Calls whose result holds nothing foreign, or has been made visible already.
SAFE = {"visible", "visible_json", "dim", "red"}
#: These print to the process that started them, which logs it, or have a check of their own.
EXEMPT = ("engines/", "environments/probe.py", "environments/find.py", "terminal/status_line.py")


def test_every_text_that_is_printed_is_made_visible() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if str(path.relative_to(PACKAGE)).startswith(EXEMPT):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) != "print":
                continue
            if not all(map(_is_safe, node.args)):
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert not found


def _is_safe(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) in SAFE
    if isinstance(node, ast.IfExp):
        return _is_safe(node.body) or ast.unparse(node.body) == "_CLEAR"
    if isinstance(node, ast.JoinedStr):
        return all(_is_safe(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return _is_safe(node.value)
    return isinstance(node, ast.Constant)
