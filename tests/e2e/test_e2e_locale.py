"""The command in a locale without UTF-8, with Python's UTF-8 mode off."""

import json
import subprocess
from pathlib import Path

import pytest

from support.command import run

TEXT = "naïve – 日本"


def run_in_ascii(*words: str | Path, stdin: str = "hi") -> "subprocess.CompletedProcess[str]":
    return run(*words, stdin=stdin, PYTHONUTF8="0", LC_ALL="C")


def test_help_and_lists_are_shown() -> None:
    for words in (["--help"], ["engine", "list"], ["ps", "--help"]):
        done = run_in_ascii(*words)
        assert (done.returncode, done.stderr.count("dynemo-run:")) == (0, 0)
        assert done.stdout == run(*words).stdout


def test_an_answer_comes_out_as_it_is() -> None:
    done = run_in_ascii("out=echo:text", stdin=TEXT)
    assert (done.returncode, done.stdout) == (0, TEXT + "\n")
    assert done.stderr == "model demo · engine echo · context 1048576\n"


def test_a_prompt_comes_out_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    file.write_text(json.dumps([{"role": "user", "content": TEXT}]))
    done = run_in_ascii("render", "demo", "--messages", file)
    assert (done.returncode, TEXT in done.stdout) == (0, True)


@pytest.mark.parametrize("words", [["in=ü"], ["--grün"], ["grün.gguf"], ["--config", "grün.toml"]])
def test_a_mistake_in_such_letters_is_a_sentence(words: list[str]) -> None:
    done = run_in_ascii(*words)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "UnicodeEncodeError" not in done.stderr


def test_an_engine_of_one_s_own_may_print_such_letters(tmp_path: Path) -> None:
    file = tmp_path / "prints.py"
    file.write_text(f"async def generate(request):\n    print({TEXT!r})\n    yield {TEXT!r}\n")
    done = run_in_ascii(f"out={file}")
    assert (done.returncode, done.stdout) == (0, TEXT + "\n")
