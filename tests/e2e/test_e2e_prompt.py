"""`in=stdin` reads one prompt from a pipe and answers with the demo model."""

import os
import subprocess
from pathlib import Path

import pytest

from support.command import COMMAND, run

QUESTION = "What is the capital of South Africa?"


def test_the_answer_alone_is_on_standard_output() -> None:
    done = run(stdin=QUESTION + "\n")
    assert done.stdout == "The capital of South Africa is Pretoria.\n"
    assert done.returncode == 0
    assert done.stderr.splitlines() == ["model demo · engine llama_cpp · context 4096"]


def test_echo_needs_no_weights(demo_folder: Path) -> None:
    done = run("out=echo", demo_folder, stdin="Hello there", DYNEMO_TOKEN_ECHO_DELAY_MS="0")
    assert done.returncode == 0
    assert "Hello there" in done.stdout


def test_head_ends_it_cleanly() -> None:
    command = f"echo 'Count to 40' | {' '.join(COMMAND)} | head -c 5"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=15,
        check=False,
    )  # fmt: skip
    assert done.stdout == "1, 2,"
    assert done.stderr.splitlines() == ["model demo · engine llama_cpp · context 4096"]


def test_a_request_template_is_merged_under_each_request(tmp_path: Path) -> None:
    template = tmp_path / "defaults.json"
    template.write_text('{"max_tokens": 3}')
    done = run("--request-template", template, stdin="Count to 40")
    assert "1, 2, 3, 4".startswith(done.stdout.rstrip("\n"))
    assert "cut off after 3 tokens" in done.stderr


def test_help_and_version_load_nothing() -> None:
    for flag in ("--help", "--version"):
        done = subprocess.run(
            [*COMMAND[:1], "-X", "importtime", *COMMAND[1:], flag],
            capture_output=True, text=True, timeout=15, check=True, env=os.environ,
        )  # fmt: skip
        for heavy in ("asyncio", "msgspec", "jinja2", "tokenizers", "xllamacpp", "uvicorn"):
            assert f"| {heavy}\n" not in done.stderr
            assert f" {heavy}\n" not in done.stderr


@pytest.mark.parametrize("word", ["in=http", "out=", "--http-port", "Examples:"])
def test_help_teaches(word: str) -> None:
    assert word in run("--help").stdout


def test_one_answer_whatever_the_template_says(tmp_path: Path) -> None:
    template = tmp_path / "defaults.json"
    template.write_text('{"n": 3}')
    done = run("--request-template", template, stdin=QUESTION)
    assert done.stdout == "The capital of South Africa is Pretoria.\n"


def test_a_tokenizer_of_another_model_is_refused_at_start(demo: Path, tmp_path: Path) -> None:
    fidelity = Path(__file__).parents[1] / "fidelity"
    (tmp_path / "tokenizer.json").write_bytes((fidelity / "tokenizer_byte_level.json").read_bytes())
    done = run(demo, "--model-config", tmp_path, stdin=QUESTION)
    assert done.returncode == 2
    assert "so it belongs to another model" in done.stderr
